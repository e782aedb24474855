"""One line a read, tab-separated, with a header; the mask is run-length encoded as Kraken writes its hit list."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from wyr_batch.convert.conversion import Conversion, Written
from wyr_batch.convert.lines import decimal_texts, field_texts, join, join_lists, pieces, runs
from wyr_batch.convert.output import text_output
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows

_DECIMALS = 4


def write_tsv(conversion: Conversion) -> Written:
    """Write one line a read.

    Source: the hit list is the fifth field of Kraken 2's output, `value:count` with a space between (its manual).
    Raises: InputError, OutputError.
    """
    masks = conversion.masks
    columns = [name for name in ("file", "read_id", "mate", "length", "status", "mask_mean") if name in masks]
    for rank in masks.ranks:
        columns += [name for call in (rank, f"{rank}_masked") for name in (call, f"{call}_prob") if name in masks]
    columns += ["mask", "segments"]
    with text_output(conversion.output) as out:
        out.write(("\t".join(columns) + "\n").encode())
        for rows in pieces(masks, [*columns, "token_start"]):
            out.write_lines(join(join(*(_texts(name, rows, masks) for name in columns)), "\n", sep=""))
    return Written(masks.n_rows, masks.n_rows, "lines")


def _texts(column: str, rows: MaskRows, masks: MaskFile) -> pa.Array:
    if column == "mask":
        return _hit_list(rows)
    if column == "segments":
        segments = rows.segments()
        spans = join(pa.array(segments.start), pa.array(segments.end), sep="-")
        return join_lists(spans, segments.offsets, ",")
    if pa.types.is_floating(kind := masks.schema.field(column).type):
        return decimal_texts(rows.numbers(column), _DECIMALS)
    return rows.column(column) if pa.types.is_integer(kind) else field_texts(rows, column, masks)


def _hit_list(rows: MaskRows) -> pa.Array:
    """Return the mask of each row as `percent:tokens percent:tokens ...`, tokens in read order."""
    tokens = rows.masks()
    percent = np.rint(tokens.values * 100).astype(np.int32)
    first, end, lists = runs(percent, tokens.offsets)
    return join_lists(join(pa.array(percent[first]), pa.array(end - first), sep=":"), lists, " ")
