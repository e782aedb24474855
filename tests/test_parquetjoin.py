"""Joined without decoding, a file reads as its parts one after the other, in pyarrow and in another reader."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wyr_batch.rows.join import UnknownField, join_parquet, shifted_footer

LABELS = pa.dictionary(pa.int32(), pa.string())


def table(n_rows: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    lists = [random.random(random.integers(0, 40)).astype(np.float32) for _ in range(n_rows)]
    lists = [None if random.random() < 0.1 else values for values in lists]  # type: ignore[misc]
    return pa.table(
        {
            "id": pa.array([f"read{seed}.{i}" for i in range(n_rows)], pa.string()),
            "mask": pa.array(lists, pa.list_(pa.float32())),
            "label": pa.array(random.choice(["a", f"b{seed}", None], n_rows).tolist(), pa.string()).cast(LABELS),
            "spans": pa.array([[{"start": i}] for i in range(n_rows)], pa.list_(pa.struct([("start", pa.int32())]))),
        }
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=5), st.booleans(), st.sampled_from(["zstd", "none"]))
def test_joined_is_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], page_index: bool, compression: str
) -> None:
    folder = tmp_path_factory.mktemp("join")
    tables = [table(n, seed) for seed, n in enumerate(sizes)]
    paths = [folder / f"{i}.parquet" for i in range(len(sizes))]
    for each, path in zip(tables, paths, strict=True):
        pq.write_table(each, path, row_group_size=70, compression=compression, write_page_index=page_index)
    output = folder / "joined.parquet"
    schema = table(0, 0).schema.with_metadata({"wyr": "{}"})
    with output.open("wb") as out:
        assert join_parquet(paths, out, schema, {"counts": {"reads": sum(sizes)}}) == sum(sizes)
    whole = pa.concat_tables([table(0, 0), *tables])
    made = pq.read_table(output)
    assert made.replace_schema_metadata().equals(whole)
    metadata = pq.read_metadata(output)
    assert metadata.num_row_groups == sum(max(1, -(-n // 70)) for n in sizes)
    assert metadata.metadata[b"wyr_counts"] == f'{{"reads": {sum(sizes)}}}'.encode()
    assert made.schema.metadata[b"wyr"] == b"{}"
    rows = duckdb.sql(f"select id, mask, label, spans from '{output}'").fetchall()
    assert rows == [tuple(row.values()) for row in whole.to_pylist()]
    some = pq.read_table(output, filters=[("id", "=", "read0.3")])  # statistics and indexes still fit
    assert some.num_rows == (len(sizes) > 0 and sizes[0] > 3)


def test_a_shift_of_nothing_changes_nothing_and_shifts_add_up(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(table(500, 1), path, row_group_size=20, write_page_index=True)
    data = path.read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert shifted_footer(footer, 0) == footer
    assert shifted_footer(shifted_footer(footer, 70_000), 5_000_000_000) == shifted_footer(footer, 5_000_070_000)


def test_a_cut_part_or_one_of_another_schema_is_refused(tmp_path: Path) -> None:
    good, cut, other = tmp_path / "good.parquet", tmp_path / "cut.parquet", tmp_path / "other.parquet"
    pq.write_table(table(50, 1), good)
    cut.write_bytes(good.read_bytes()[:-20])
    pq.write_table(pa.table({"x": [1]}), other)
    for bad in (cut, other):
        with (tmp_path / "out.parquet").open("wb") as out, pytest.raises((OSError, RuntimeError)):
            join_parquet([good, bad], out, table(0, 0).schema, {})


@pytest.mark.parametrize(
    ("field", "footer"),
    [
        ("10", "05 14 02 00"),
        ("4.8", "49 1c 85 02 00 00"),
        ("4.1.10", "49 1c 19 1c 05 14 02 00 00 00"),
        ("4.1.3.18", "49 1c 19 1c 3c 05 24 02 00 00 00 00"),
    ],
)
def test_a_field_that_parquet_did_not_have_may_be_an_offset_and_is_refused(field: str, footer: str) -> None:
    with pytest.raises(UnknownField, match=f"field {field}$"):
        shifted_footer(bytes.fromhex(footer), 1)
