"""Draw docs/masks.svg: a few reads of the example, each 6-mer coloured by its mask.

wyr-batch run examples/reads.fastq.gz -o masks.parquet
python docs/make_picture.py masks.parquet examples/reads.fastq.gz docs/masks.svg read0009 read0939 read0717
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from wyr_batch.reads.open import open_reads

LETTER_PX, LINE_PX, LINE_BP, MARGIN_PX = 8.4, 19, 126, 14


def main(parquet: str, fastq: str, output: str, *names: str) -> None:
    bases = {}
    with open_reads(fastq) as reads:
        for chunk in reads:
            for i, name in enumerate(chunk.ids.to_pylist()):
                bases[name] = chunk.bases[chunk.offsets[i] : chunk.offsets[i + 1]].tobytes().decode()
    rows = {row["read_id"]: row for row in pq.read_table(parquet).to_pylist()}
    parts, y = [], MARGIN_PX + 10
    for name in names:
        row, read = rows[name], bases[name]
        call = f"{name}: {row['genus']} (p {row['genus_prob']:.2f}); masked: {row['genus_masked']}"
        parts.append(
            f'<text x="{MARGIN_PX}" y="{y}" font-weight="bold">{call} (p {row["genus_masked_prob"]:.2f})</text>'
        )
        y += LINE_PX
        for start, end, mask in zip(row["token_start"], [*row["token_start"][1:], len(read)], row["mask"], strict=True):
            for at in range(start, end):
                x, line = MARGIN_PX + at % LINE_BP * LETTER_PX, y + at // LINE_BP * LINE_PX
                parts.append(
                    f'<rect x="{x:.1f}" y="{line - 13}" width="{LETTER_PX + 0.2:.1f}" height="17" '
                    f'fill="#1a7f37" fill-opacity="{mask:.2f}"/>'
                )
        for at in range(0, len(read), LINE_BP):
            line = y + at // LINE_BP * LINE_PX
            text = read[at : at + LINE_BP]
            width = LETTER_PX * len(text)
            parts.append(f'<text x="{MARGIN_PX}" y="{line}" textLength="{width:.1f}">{text}</text>')
        y += LINE_PX * (-(-len(read) // LINE_BP)) + 12
    width = 2 * MARGIN_PX + LINE_BP * LETTER_PX
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y}" width="{width:.0f}" height="{y}" '
        'font-family="monospace" font-size="14"><rect width="100%" height="100%" fill="white"/>'
    )
    Path(output).write_text(head + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
