"""Draw docs/method.svg: the two passes through the Explanandum, and the mask between them.

python docs/make_method.py

The figure has no background, and colours that can be read on white and on black.
"""

from __future__ import annotations

from pathlib import Path

OUTPUT = Path(__file__).parent / "method.svg"
WIDTH_PX, HEIGHT_PX = 660, 560
LINE, TEXT = "#7a8490", "#7a8490"  # as far from white as from black
FROZEN, TRAINED, DATA, MASK = ("#dbe9f9", "#2f6fb5"), ("#dcf3e0", "#1a7f37"), ("#f3f0e6", "#a08c50"), "#1a7f37"
INK = "#1f2328"  # on the light boxes
LEFT, MIDDLE, RIGHT, BOX_PX = 100, 320, 540, 180

# Values of three ranks; the target mask is the largest, token by token.
RANK_MASKS = (
    (0.1, 0.9, 1.0, 0.8, 0.1, 0.0, 0.0, 0.1, 0.0, 0.0, 0.2, 0.1),
    (0.0, 0.2, 0.9, 1.0, 0.7, 0.1, 0.0, 0.0, 0.0, 0.1, 0.1, 0.0),
    (0.0, 0.0, 0.1, 0.2, 0.1, 0.0, 0.1, 0.8, 1.0, 0.9, 0.1, 0.0),
)
CELL_PX = 11


def box(x: float, y: float, colours: tuple[str, str], *lines: str) -> str:
    """Return a box around a point, with lines of text; the first is bold."""
    fill, edge = colours
    height = 14 + 18 * len(lines)
    out = [
        f'<rect x="{x - BOX_PX / 2}" y="{y - height / 2}" width="{BOX_PX}" height="{height}" rx="6" '
        f'fill="{fill}" stroke="{edge}"/>'
    ]
    for i, line in enumerate(lines):
        weight = ' font-weight="bold"' if i == 0 else ""
        at = y - height / 2 + 21 + 18 * i
        out.append(f'<text x="{x}" y="{at}" text-anchor="middle" fill="{INK}"{weight}>{line}</text>')
    return "".join(out)


def arrow(*points: tuple[float, float]) -> str:
    """Return a line along points, with a head at its end."""
    way = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{way}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#head)"/>'


def label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Return a text outside of the boxes."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{TEXT}">{text}</text>'


def strip(x: float, y: float, values: tuple[float, ...]) -> str:
    """Return a mask as a row of cells around a point."""
    start = x - CELL_PX * len(values) / 2
    return "".join(
        f'<rect x="{start + CELL_PX * i}" y="{y - CELL_PX / 2}" width="{CELL_PX - 1}" height="{CELL_PX - 1}" '
        f'fill="{MASK}" fill-opacity="{value}" stroke="{LINE}" stroke-width="0.6"/>'
        for i, value in enumerate(values)
    )


def times(x: float, y: float) -> str:
    """Return the sign of the product with the mask."""
    return (
        f'<circle cx="{x}" cy="{y}" r="11" fill="none" stroke="{LINE}" stroke-width="1.6"/>'
        f'<circle cx="{x}" cy="{y}" r="2.6" fill="{LINE}"/>'
    )


def draw() -> str:
    """Return the figure."""
    target = tuple(max(values) for values in zip(*RANK_MASKS, strict=True))
    parts = [
        box(MIDDLE, 30, DATA, "read", "6-mer tokens"),
        arrow((MIDDLE, 55), (MIDDLE, 83)),
        box(MIDDLE, 100, DATA, "embeddings"),
        # plain read
        arrow((MIDDLE - BOX_PX / 2, 100), (LEFT, 100), (LEFT, 150)),
        label(LEFT, 90, "plain read"),
        box(LEFT, 175, FROZEN, "Explanandum", "frozen"),
        arrow((LEFT, 200), (LEFT, 417)),
        label(LEFT + 10, 310, "hidden states", "start"),
        box(LEFT, 434, DATA, "mean"),
        arrow((LEFT, 451), (LEFT, 482)),
        box(LEFT, 508, DATA, "calls", "RANK, RANK_prob"),
        # Explainer
        arrow((LEFT + BOX_PX / 2, 175), (MIDDLE - BOX_PX / 2, 175)),
        arrow((MIDDLE, 117), (MIDDLE, 150)),
        box(MIDDLE, 175, TRAINED, "Explainer", "trained once"),
        arrow((MIDDLE, 200), (MIDDLE, 234)),
        *(strip(MIDDLE, 246 + 14 * i, values) for i, values in enumerate(RANK_MASKS)),
        label(MIDDLE - 74, 265, "per rank", "end"),
        arrow((MIDDLE, 284), (MIDDLE, 320)),
        label(MIDDLE + 12, 307, "maximum", "start"),
        strip(MIDDLE, 332, target),
        label(MIDDLE, 358, "target mask m"),
        # masked read
        arrow((MIDDLE + BOX_PX / 2, 100), (RIGHT, 100), (RIGHT, 140)),
        label(RIGHT, 90, "masked read"),
        times(RIGHT, 153),
        arrow((RIGHT, 165), (RIGHT, 225)),
        box(RIGHT, 251, FROZEN, "Explanandum", "the same"),
        arrow((RIGHT, 277), (RIGHT, 378)),
        label(RIGHT + 10, 332, "hidden states", "start"),
        times(RIGHT, 391),
        arrow((RIGHT, 403), (RIGHT, 417)),
        box(RIGHT, 434, DATA, "mean"),
        arrow((RIGHT, 451), (RIGHT, 482)),
        box(RIGHT, 508, DATA, "calls", "RANK_masked, ..."),
        # The mask goes to both products.
        arrow((MIDDLE + 68, 332), (432, 332), (432, 153), (RIGHT - 13, 153)),
        arrow((432, 332), (432, 391), (RIGHT - 13, 391)),
        label(442, 147, "m", "start"),
        label(442, 385, "m", "start"),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" width="{WIDTH_PX}" '
        f'height="{HEIGHT_PX}" font-family="system-ui, sans-serif" font-size="15">'
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>'
    )
    return head + "\n".join(parts) + "</svg>\n"


if __name__ == "__main__":
    OUTPUT.write_text(draw())
