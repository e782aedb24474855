"""Draw docs/masks.svg: a read base by base, and a chimera of two reads under two questions, with the starter.

    python docs/make_picture.py examples/reads.fastq.gz docs/masks.svg READ FIRST SECOND

READ is drawn with its bases. FIRST and SECOND, reads of different genera, are joined and explained twice: once for the
genus of each.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from wyr_batch import RunConfig, run
from wyr_batch.reads.open import open_reads

LETTER_PX, LINE_PX, LINE_BP, MARGIN_PX = 8.4, 26, 126, 16
STRIP_PX, STRIP_HEIGHT_PX = LETTER_PX * LINE_BP, 44
GREEN, ORANGE, INK, GREY = "#1a7f37", "#b35900", "#1f2328", "#8c959f"


def sequences(path: str) -> dict[str, str]:
    """Return the bases of every read by its name."""
    found = {}
    with open_reads(path) as reads:
        for chunk in reads:
            for i, name in enumerate(chunk.ids.to_pylist()):
                found[name] = chunk.bases[chunk.offsets[i] : chunk.offsets[i + 1]].tobytes().decode()
    return found


def explained(bases: dict[str, str], **options: Any) -> dict[str, dict[str, Any]]:
    """Return the row of each read, explained by the starter."""
    with tempfile.TemporaryDirectory() as tmp:
        source, output = Path(tmp) / "reads.fasta", Path(tmp) / "masks.parquet"
        source.write_text("".join(f">{name}\n{read}\n" for name, read in bases.items()))
        run(RunConfig((str(source),), output, device="cpu", **options), progress=False)
        return {row["read_id"]: row for row in pq.read_table(output).to_pylist()}


def text(x: float, y: float, words: str, **attributes: Any) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{words}</text>'


def drawn_read(row: dict[str, Any], read: str, y: float) -> tuple[list[str], float]:
    """Return the read's bases, each 6-mer shaded by its mask, segments underlined, and where the drawing ends."""
    parts = []
    ends = [*row["token_start"][1:], len(read)]
    for start, end, mask in zip(row["token_start"], ends, row["mask"], strict=True):
        for at in range(start, end):
            x, line = MARGIN_PX + at % LINE_BP * LETTER_PX, y + at // LINE_BP * LINE_PX
            shade = f'fill="{GREEN}" fill-opacity="{0.55 * mask:.2f}"'
            parts.append(f'<rect x="{x:.1f}" y="{line - 14}" width="{LETTER_PX + 0.2:.1f}" height="18" {shade}/>')
            if mask >= 0.5:
                parts.append(
                    f'<rect x="{x:.1f}" y="{line + 5}" width="{LETTER_PX + 0.2:.1f}" height="3" fill="{GREEN}"/>'
                )
    for at in range(0, len(read), LINE_BP):
        line, words = y + at // LINE_BP * LINE_PX, read[at : at + LINE_BP]
        parts.append(text(MARGIN_PX, line, words, textLength=f"{LETTER_PX * len(words):.1f}"))
    return parts, y + LINE_PX * -(-len(read) // LINE_BP)


def drawn_strip(row: dict[str, Any], mask: list[float], length: int, y: float, colour: str) -> list[str]:
    """Return a mask along a read as a silhouette."""
    scale = STRIP_PX / length
    base = y + STRIP_HEIGHT_PX
    points = [f"{MARGIN_PX},{base}"]
    for (start, end), value in zip(pairwise([*row["token_start"], length]), mask, strict=True):
        top = base - value * STRIP_HEIGHT_PX
        points += [f"{MARGIN_PX + start * scale:.1f},{top:.1f}", f"{MARGIN_PX + end * scale:.1f},{top:.1f}"]
    points.append(f"{MARGIN_PX + STRIP_PX:.1f},{base}")
    place = f'x="{MARGIN_PX}" y="{y}" width="{STRIP_PX:.1f}" height="{STRIP_HEIGHT_PX}"'
    frame = f'<rect {place} fill="{GREY}" fill-opacity="0.12"/>'
    return [frame, f'<polygon points="{" ".join(points)}" fill="{colour}" fill-opacity="0.8"/>']


def main(fastq: str, output: str, name: str, *halves: str) -> None:
    bases = sequences(fastq)
    alone = explained({read: bases[read] for read in (name, *halves)})
    row, y = alone[name], MARGIN_PX + 12.0
    call = f"{name}, called {row['genus']} (p {row['genus_prob']:.2f}); of the kept part alone: {row['genus_masked']}"
    parts = [text(MARGIN_PX, y, call, font_weight="bold")]
    body, y = drawn_read(row, bases[name], y + LINE_PX)
    parts += body
    genera = [alone[half]["genus"] for half in halves]
    joined = "".join(bases[half] for half in halves)
    border = MARGIN_PX + STRIP_PX * len(bases[halves[0]]) / len(joined)
    y += 18
    parts.append(text(MARGIN_PX, y, "Two reads joined, explained for the genus of either half", font_weight="bold"))
    y += 14
    top = y
    for genus, colour in zip(genera, (GREEN, ORANGE), strict=True):
        asked = explained({"chimera": joined}, explain=(f"genus={genus}",), rank_masks=True)["chimera"]
        y += 18
        parts.append(text(MARGIN_PX, y, f"Where is {genus}?", fill=colour))
        parts += drawn_strip(asked, asked["mask_genus"], len(joined), y + 6, colour)
        y += STRIP_HEIGHT_PX + 14
    parts.append(
        f'<line x1="{border:.1f}" x2="{border:.1f}" y1="{top + 8}" y2="{y - 8}" stroke="{INK}" stroke-dasharray="4 3"/>'
    )
    y += 12
    for x, half, genus in ((MARGIN_PX, halves[0], genera[0]), (border + 6, halves[1], genera[1])):
        parts.append(text(x, y, f"{half}, {len(bases[half])} bp of {genus}", fill=GREY))
    y += MARGIN_PX
    width = 2 * MARGIN_PX + STRIP_PX
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y:.0f}" width="{width:.0f}" '
        f'height="{y:.0f}" font-family="ui-monospace, monospace" font-size="14" fill="{INK}">'
        '<rect width="100%" height="100%" fill="white"/>'
    )
    Path(output).write_text(head + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
