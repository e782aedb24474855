"""One Parquet file: it appears only when it is whole, and its row groups are full whatever comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from toy_engine import RANKS, ToyEngine

from wyr_batch.explain.step import ExplainStep
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.writer import ROW_GROUP_ROWS, MaskWriter
from wyr_batch.tokens.plan import Planner

BUILDER = RowBuilder(RANKS)


def rows(n: int) -> pa.RecordBatch:
    chunk = ReadChunk.from_sequences([("ACGT" * 3)[: i % 13] for i in range(n)])
    step = ExplainStep(ToyEngine(), np.full(2, -1, np.int32))
    return BUILDER.build(step(Planner(10, 2, 100_000).plan(chunk)))


def test_output_appears_only_when_whole(tmp_path: Path) -> None:
    output = tmp_path / "masks.parquet"
    writer = MaskWriter(output, BUILDER.schema, {"version": "test"})
    writer.write(rows(1))
    assert not output.exists()
    writer.commit()
    assert output.exists()
    again = MaskWriter(output, BUILDER.schema, {})
    again.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["masks.parquet"]


def test_row_groups_are_full_whatever_comes_in(tmp_path: Path) -> None:
    batches = [rows(n) for n in (3, ROW_GROUP_ROWS - 1, 2 * ROW_GROUP_ROWS, 7)]
    writer = MaskWriter(tmp_path / "masks.parquet", BUILDER.schema, {})
    for batch in batches:
        writer.write(batch)
    writer.commit()
    made = pq.ParquetFile(tmp_path / "masks.parquet")
    groups = [made.metadata.row_group(i).num_rows for i in range(made.num_row_groups)]
    assert groups == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, ROW_GROUP_ROWS, 9]
    assert made.read().equals(pa.Table.from_batches(batches))
