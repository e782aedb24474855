"""Small pieces of SVG: axes, steps, text that fits. Colours and type are the page's style sheet's, by class."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wyr_batch.report.parts import escape

FONT = 11
_TICK, _GAP = 4, 5
# Widths of letters in ems, of the usual sans-serif faces; what is not here is as wide as most small letters.
_WIDTHS = {".32": "iIjltf.,:;|!'()[] -", ".35": "r", ".5": "ckszxvyJ", ".68": "ABCDEFGHKLNOPQRSTUVXYZ", ".86": "mwMW@%"}
_EMS = {letter: float(width) for width, letters in _WIDTHS.items() for letter in letters}


def num(value: float) -> str:
    """Return a coordinate: at most two decimals.

    >>> num(3.0), num(0.125), num(-0.001)
    ('3', '0.12', '0')
    """
    shown = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def text_width(text: str, size: float = FONT) -> float:
    """Return about how wide a text is."""
    return size * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else _EMS.get(c, 0.56) for c in text)


def shortened(text: str, width: float, size: float = FONT) -> str:
    """Return a text, its end as an ellipsis if it is wider than `width`."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""


def ticks(most: float, n: int = 5) -> list[float]:
    """Return round numbers from 0 to `most` or a little less, about `n` of them.

    >>> ticks(0.37), ticks(45)
    ([0.0, 0.1, 0.2, 0.3], [0.0, 10.0, 20.0, 30.0, 40.0])
    """
    if most <= 0:
        return [0.0]
    raw = most / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.9)
    return [round(i * step, 10) for i in range(int(most / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's place in its picture, and what its sides stand for."""

    width: float
    height: float
    x_most: float
    y_most: float
    x_least: float = 0.0
    left: float = 38
    right: float = 10
    top: float = 26
    bottom: float = 38

    def x(self, value: float) -> float:
        span = (self.x_most - self.x_least) or 1
        return self.left + (value - self.x_least) / span * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        return self.height - self.bottom - value / (self.y_most or 1) * (self.height - self.top - self.bottom)


def picture(width: float, height: float, label: str, parts: Iterable[str], kind: str = "chart") -> str:
    """Return an SVG; `label` says in words what it shows."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {num(width)} {num(height)}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def text(x: float, y: float, content: str, kind: str) -> str:
    """Return a text; `kind`: classes."""
    return f'<text x="{num(x)}" y="{num(y)}" class="{kind}">{escape(content)}</text>'


def axes(
    frame: Frame,
    x_ticks: Mapping[float, str],
    y_ticks: Mapping[float, str],
    x_label: str,
    y_label: str = "",
) -> str:
    """Return grid lines, ticks and labels; tick places as in the frame, with what stands there."""
    left, right = frame.left, frame.width - frame.right
    bottom = frame.height - frame.bottom
    parts = []
    for value, label in y_ticks.items():
        y = frame.y(value)
        kind = "base" if value == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{num(left)} {num(y)}H{num(right)}"/>')
        parts.append(text(left - _GAP, y + FONT * 0.35, label, "end"))
    for value, label in x_ticks.items():
        x = frame.x(value)
        parts.append(f'<path class="base" d="M{num(x)} {num(bottom)}v{_TICK}"/>')
        parts.append(text(x, bottom + _TICK + FONT + 1, label, "mid"))
    parts.append(text((left + right) / 2, frame.height - 4, x_label, "mid name"))
    if y_label:
        parts.append(text(0, FONT - 1, y_label, "name"))
    return "".join(parts)


def columns(frame: Frame, values: Sequence[float], edges: Sequence[float], kind: str) -> str:
    """Return bars over bins, with hairlines between, as one path; an empty bin has none."""
    base = frame.y(0)
    gap = min(1.0, 0.15 * (frame.x(edges[1]) - frame.x(edges[0]))) if len(edges) > 1 else 0
    parts = []
    for value, start, end in zip(values, edges, edges[1:], strict=False):
        if value > 0:
            x, width, y = frame.x(start), frame.x(end) - frame.x(start) - gap, min(frame.y(value), base - 0.4)
            parts.append(f"M{num(x)} {num(base)}V{num(y)}h{num(width)}V{num(base)}z")
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def steps(frame: Frame, values: Sequence[float], edges: Sequence[float], kind: str) -> str:
    """Return the outline of bars over bins."""
    parts = [f"M{num(frame.x(edges[0]))} {num(frame.y(0))}"]
    for value, end in zip(values, edges[1:], strict=False):
        parts.append(f"V{num(frame.y(value))}H{num(frame.x(end))}")
    return f'<path class="{kind}" d="{"".join(parts)}V{num(frame.y(0))}"/>'


def line(frame: Frame, points: Iterable[tuple[float, float]], kind: str) -> str:
    """Return a line through points."""
    places = [f"{num(frame.x(x))} {num(frame.y(y))}" for x, y in points]
    return f'<path class="{kind}" d="M{"L".join(places)}"/>' if places else ""


def dot(x: float, y: float, radius: float) -> str:
    """Return a circle as a piece of a path."""
    r, across = num(radius), num(2 * radius)
    return f"M{num(x - radius)} {num(y)}a{r} {r} 0 1 0 {across} 0a{r} {r} 0 1 0 -{across} 0z"
