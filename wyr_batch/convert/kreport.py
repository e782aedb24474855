"""A report in the style of Kraken, of the calls in a masks file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from wyr_batch.convert.conversion import Conversion, Written
from wyr_batch.convert.lines import field_texts
from wyr_batch.convert.output import text_output
from wyr_batch.masks.file import MaskFile
from wyr_batch.ranks import coarse_to_fine
from wyr_batch.rows.kreport import Clade, kreport


def write_kreport(conversion: Conversion) -> Written:
    """Write the report; only the columns of calls are read, and each mate is a read.

    Raises: InputError, OutputError.
    """
    masks = conversion.masks
    ranks = coarse_to_fine(masks.ranks)
    text = kreport(ranks, count_clades(masks, ranks))
    with text_output(conversion.output) as out:
        out.write(text.encode())
    return Written(masks.n_rows, text.count("\n"), "lines")


def count_clades(masks: MaskFile, ranks: Sequence[str]) -> Counter[Clade]:
    """Return how many reads end in each clade: their calls at `ranks` up to the first that is null."""
    counts: Counter[Clade] = Counter()
    for rows in masks.rows(ranks):
        calls = pa.table({rank: field_texts(rows, rank, masks) for rank in ranks})
        groups = calls.group_by(list(ranks)).aggregate([([], "count_all")]).to_pydict()
        for *labels, n in zip(*(groups[name] for name in (*ranks, "count_all")), strict=True):
            counts[tuple(labels[: labels.index("")] if "" in labels else labels)] += n
    return counts
