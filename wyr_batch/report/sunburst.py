"""The lineages of the calls as rings, the first rank innermost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wyr_batch.draw.kinds import Kind
from wyr_batch.report.parts import escape
from wyr_batch.report.svg import num, picture, shortened, text_width

COLOURS = 8  # of the style sheet: h0 to h7; further labels of the first rank are grey
_SIZE, _HOLE = 480.0, 34.0
_FONT = 9.7
_LEAST_ANGLE = 0.013  # radians; narrower branches are drawn as one
_FIRST_RING = 0.52  # of the width of the others: its labels lie along it
_LEAST_LETTERS = 6  # of a label that is cut short


@dataclass(frozen=True, slots=True)
class Arc:
    """A branch as part of a ring.

    Attributes:
        start, end: angles from the top, clockwise, in radians.
        path: labels from the first rank on; the last is its own.
        kind: "nocall", "more" for several small branches together, else empty.
    """

    depth: int
    start: float
    end: float
    path: tuple[str, ...]
    reads: int
    colour: int
    kind: str


def sunburst(
    lineages: Mapping[str, Any],
    ranks: Sequence[str],
    colours: Mapping[str | None, int],
    kind: Kind,
    key: str = "",
    name: str = "",
) -> str:
    """Return the picture; empty text where no read has calls.

    Args:
        lineages: the JSON's, of one file.
        colours: number of the colour of each call of the first rank; others are grey.
        kind: of the file.
        key: tells apart what is named inside several pictures of a page.
        name: of the file, for readers who hear the page.
    """
    total = lineages["reads"]
    if not total:
        return ""
    radii = _radii(len(ranks))
    parts = []
    for i, arc in enumerate(arcs_of(lineages, total, colours)):
        inner, outer = radii[arc.depth], radii[arc.depth + 1]
        said = " › ".join(arc.path)
        title = f"{said}: {arc.reads:,} {kind.rows}, {arc.reads / total:.1%}"
        style = f"d{min(arc.depth, 3)} h{arc.colour} {arc.kind}".rstrip()
        parts.append(
            f'<path class="{style}" d="{_ring(arc.start, arc.end, inner, outer)}"><title>{escape(title)}</title></path>'
            f"{_label(arc, inner, outer, f'{key}{i}')}"
        )
    size = min(18.0, 1.7 * _HOLE / text_width(f"{total:,}", 1.0))
    middle = (
        f'<text class="mid big" y="2" style="font-size:{num(size)}px">{total:,}</text>'
        f'<text class="mid" y="15">{kind.row if total == 1 else kind.rows}</text>'
    )
    label = f"Calls rank by rank, {', then '.join(ranks)}, from the middle outwards"
    body = f'<g transform="translate({num(_SIZE / 2)} {num(_SIZE / 2)})">{"".join(parts)}{middle}</g>'
    return picture(_SIZE, _SIZE, f"{name}: {label}" if name else label, [body], "chart sunburst")


def _radii(n_ranks: int) -> list[float]:
    """Return where the rings begin and end."""
    weights = [_FIRST_RING, *[1.0] * (n_ranks - 1)]
    unit = (_SIZE / 2 - 2 - _HOLE) / max(sum(weights), 1.5)
    radii = [_HOLE]
    for weight in weights:
        radii.append(radii[-1] + weight * unit)
    return radii


def arcs_of(lineages: Mapping[str, Any], total: int, colours: Mapping[str | None, int]) -> Iterator[Arc]:
    """Yield every branch, parents before their children; what is too narrow to be seen is one branch with the rest."""
    stack: list[tuple[Mapping[str, Any], int, float, tuple[str, ...], int]] = [(lineages, 0, 0.0, (), -1)]
    while stack:
        node, depth, start, path, colour = stack.pop()
        n_more, reads_more = node["other_labels"], node["other_reads"]
        for child in node["children"]:
            angle = 2 * math.pi * child["reads"] / total
            if angle < _LEAST_ANGLE:
                n_more, reads_more = n_more + 1, reads_more + child["reads"]
                continue
            own = colours.get(child["label"], COLOURS) if depth == 0 else colour
            names = (*path, "no call" if child["label"] is None else child["label"])
            yield Arc(
                depth, start, start + angle, names, child["reads"], own, "" if child["label"] is not None else "nocall"
            )
            stack.append((child, depth + 1, start, names, own))
            start += angle
        if reads_more:
            end = start + 2 * math.pi * reads_more / total
            yield Arc(
                depth, start, end, (*path, f"{n_more} more"), reads_more, COLOURS if depth == 0 else colour, "more"
            )


def _ring(start: float, end: float, inner: float, outer: float) -> str:
    if end - start > 2 * math.pi - 1e-6:
        circles = (f"M0 {num(-r)}A{num(r)} {num(r)} 0 1 1 -.01 {num(-r)}z" for r in (outer, inner))
        return "".join(circles)
    large = int(end - start > math.pi)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (
        _at(start, inner),
        _at(start, outer),
        _at(end, outer),
        _at(end, inner),
    )
    return (
        f"M{num(x0)} {num(y0)}L{num(x1)} {num(y1)}A{num(outer)} {num(outer)} 0 {large} 1 {num(x2)} {num(y2)}"
        f"L{num(x3)} {num(y3)}A{num(inner)} {num(inner)} 0 {large} 0 {num(x0)} {num(y0)}z"
    )


def _at(angle: float, radius: float) -> tuple[float, float]:
    return radius * math.sin(angle), -radius * math.cos(angle)


def _label(arc: Arc, inner: float, outer: float, key: str) -> str:
    """Return the label: along the ring where it is long enough, else along the radius, else none."""
    name = arc.path[-1]
    middle, radius = (arc.start + arc.end) / 2, (inner + outer) / 2
    room = (arc.end - arc.start) * radius
    width = text_width(name, _FONT)
    if width + 8 <= room and outer - inner > _FONT + 4:
        return _along(arc, radius, name, key)
    if room < _FONT + 2:
        return ""
    shown = shortened(name, outer - inner - 3, _FONT)
    if shown != name and len(shown) < _LEAST_LETTERS:
        return ""
    degrees = math.degrees(middle) - 90
    flip = 180 if middle > math.pi else 0
    x = num(-radius if flip else radius)
    turn = f"rotate({num(degrees + flip)})"
    return f'<text class="mid" transform="{turn}" x="{x}" y="{num(_FONT * 0.35)}">{escape(shown)}</text>'


def _along(arc: Arc, radius: float, name: str, key: str) -> str:
    """Return a label bent along its ring, letter by letter, head up in the lower half as well."""
    middle = (arc.start + arc.end) / 2
    below = math.pi / 2 < middle < 3 * math.pi / 2
    if arc.end - arc.start > 2 * math.pi - 1e-6:
        middle, below = 0.0, False
    baseline = radius + (0.36 if below else -0.36) * _FONT
    half = text_width(name, _FONT) / 2 / baseline + 0.08
    start, end = (middle + half, middle - half) if below else (middle - half, middle + half)
    (x0, y0), (x1, y1) = _at(start, baseline), _at(end, baseline)
    bent = f"M{num(x0)} {num(y0)}A{num(baseline)} {num(baseline)} 0 0 {0 if below else 1} {num(x1)} {num(y1)}"
    return (
        f'<path id="arc{key}" class="guide" d="{bent}"/>'
        f'<text class="mid"><textPath href="#arc{key}" startOffset="50%">{escape(name)}</textPath></text>'
    )
