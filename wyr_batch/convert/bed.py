"""BED and bedGraph: reads are the chromosomes, and places are bases of the read, 0-based and half-open.

Source: the BED specification of the GA4GH (version 1.0); the UCSC genome browser's page on bedGraph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.convert.conversion import Conversion, Written, mask_column
from wyr_batch.convert.lines import copies, decimal_texts, field_texts, join, pieces, read_names, runs
from wyr_batch.convert.output import TextOutput, text_output
from wyr_batch.errors import UsageError
from wyr_batch.masks.rows import MaskRows
from wyr_batch.ranks import coarse_to_fine

NO_CALL = "."
_MOST_SCORE = 1000
_DECIMALS = 3
_SPANS = ("read_id", "mate", "length", "token_start")


def write_bed(conversion: Conversion, *, rank: str | None, sizes: Path | None) -> Written:
    """Write one line a segment: read, start, end, call, 1000 times the mean mask, and `.` for the strand.

    Args:
        rank: whose call stands as the name; None: the finest.
        sizes: also write the length of each read there, as of chromosomes.
    Raises: UsageError, InputError, OutputError.
    """
    masks = conversion.masks
    rank = rank or coarse_to_fine(masks.ranks)[-1]
    if rank not in masks.ranks:
        raise UsageError("--rank", rank, f"one of {', '.join(masks.ranks)}: the ranks in {masks.shown}")
    n_segments = 0
    with text_output(conversion.output) as out, _sizes(sizes) as write_sizes:
        for rows in pieces(masks, [*_SPANS, "segments", rank]):
            names, segments = read_names(rows, masks), rows.segments()
            calls = field_texts(rows, rank, masks)
            calls = pc.if_else(pc.equal(calls, ""), NO_CALL, calls)
            score = np.clip(np.rint(segments.mean * np.float64(_MOST_SCORE)), 0, _MOST_SCORE).astype(np.int32)
            out.write_lines(
                join(
                    copies(names, segments.offsets),
                    pa.array(segments.start),
                    pa.array(segments.end),
                    copies(calls, segments.offsets),
                    pa.array(score),
                    ".\n",
                )
            )
            write_sizes(names, rows)
            n_segments += len(segments.start)
    return Written(masks.n_rows, n_segments, "segments")


def write_bedgraph(conversion: Conversion, *, rank_mask: str | None, sizes: Path | None) -> Written:
    """Write the mask along each read, to three decimals; tokens of one value without a gap between them are one line.

    Args:
        rank_mask: write the mask of this rank; None: that of all ranks together.
        sizes: as `write_bed`.
    Raises: InputError, OutputError.
    """
    masks = conversion.masks
    column = mask_column(masks, rank_mask)
    n_lines = 0
    with text_output(conversion.output) as out, _sizes(sizes) as write_sizes:
        for rows in pieces(masks, [*_SPANS, column]):
            names, tokens = read_names(rows, masks), rows.masks(column)
            gaps = np.ones(len(tokens.starts), bool)
            gaps[1:] = tokens.starts[1:] != tokens.ends[:-1]
            first, end, lists = runs(np.rint(tokens.values * 10.0**_DECIMALS), tokens.offsets, gaps)
            starts, ends = tokens.starts[first], tokens.ends[end - 1]
            lines = join(
                copies(names, lists),
                pa.array(starts),
                pa.array(ends),
                join(decimal_texts(tokens.values[first], _DECIMALS), "\n", sep=""),
            )
            lines = lines.filter(pa.array(starts < ends))  # a token may have no letter of its own
            out.write_lines(lines)
            write_sizes(names, rows)
            n_lines += len(lines)
    return Written(masks.n_rows, n_lines, "lines")


class _Sizes:
    """Takes reads and writes `name length` for those that have bases; without an output, nothing."""

    def __init__(self, out: TextOutput | None) -> None:
        self._out = out

    def __call__(self, names: pa.Array, rows: MaskRows) -> None:
        if self._out is not None:
            has_bases = pa.array(rows.lengths > 0)
            self._out.write_lines(join(join(names, rows.column("length")), "\n", sep="").filter(has_bases))


@contextmanager
def _sizes(path: Path | None) -> Iterator[_Sizes]:
    if path is None:
        yield _Sizes(None)
        return
    with text_output(path) as out:
        yield _Sizes(out)
