"""The JSON of the published classifier's own inference script: for each read and rank, its best labels.

    [[{"label_column": RANK, "topk_predictions": [{"label": ..., "probability": ...}, ...]}, ...], ...]

Indented by two. It has no names of reads: they are in the order of the masks file.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.convert.conversion import Conversion, Written
from wyr_batch.convert.lines import join, join_lists, pieces
from wyr_batch.convert.output import text_output
from wyr_batch.masks.rows import MaskRows, flat_lists
from wyr_batch.reads.records import offsets_from


def write_microbert_json(conversion: Conversion) -> Written:
    """Write the labels of each read as that script does; a read without any has empty lists.

    As many labels as the run kept with --top-k. Raises: InputError, OutputError.
    """
    masks = conversion.masks
    columns = [name for rank in masks.ranks for name in (rank, f"{rank}_prob", f"{rank}_top") if name in masks]
    with text_output(conversion.output) as out:
        before = b"["
        for rows in pieces(masks, columns):
            ranks = [_rank_texts(rows, rank) for rank in masks.ranks]
            reads = join("\n  [\n", join(*ranks, sep=",\n"), "\n  ]", sep="")
            out.write(before + reads[0].as_py().encode())
            out.write_lines(join(",", reads[1:], sep=""))
            before = b","
        out.write(b"\n]\n" if masks.n_rows else b"[]\n")
    return Written(masks.n_rows, masks.n_rows, "lists")


def _rank_texts(rows: MaskRows, rank: str) -> pa.Array:
    """Return the object of one rank for each row."""
    if f"{rank}_top" in rows.batch.schema.names:
        top, offsets = flat_lists(rows.column(f"{rank}_top"))
        labels, probs = top.field("label"), top.field("prob")
    else:
        calls = rows.column(rank)
        offsets = offsets_from(pc.is_valid(calls).cast(pa.int64()).to_numpy(zero_copy_only=False))
        called = calls.is_valid()
        labels, probs = calls.filter(called), rows.column(f"{rank}_prob").filter(called)
    items = join(
        '        {\n          "label": ',
        _json_texts(labels),
        ',\n          "probability": ',
        _number_texts(probs),
        "\n        }",
        sep="",
    )
    lists = join_lists(items, offsets, ",\n")
    empty = pc.equal(pc.binary_length(lists), 0)
    lists = pc.if_else(empty, "[]", join("[\n", lists, "\n      ]", sep=""))
    head = f'    {{\n      "label_column": {json.dumps(rank)},\n      "topk_predictions": '
    return join(head, lists, "\n    }", sep="")


def _json_texts(labels: pa.Array) -> pa.Array:
    coded = labels if pa.types.is_dictionary(labels.type) else labels.dictionary_encode()
    return pa.array([json.dumps(label) for label in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def _number_texts(values: pa.Array) -> pa.Array:
    """Return numbers as JSON; what is none becomes null."""
    return pc.if_else(pc.fill_null(pc.is_finite(values), False), values.cast(pa.float64()).cast(pa.string()), "null")
