"""Texts in every format that is read, each written by another tool, and what comes out when they are read."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pysam

from wyr_batch.errors import InputError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.open import Texts

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Pair = tuple[str | None, str | None]
SAVED = Path(__file__).parent / "data" / "saved_to_disk"
PAIRS: list[Pair] = [  # what SAVED holds as sentence1 and sentence2, with the numbers from 10 on as idx
    ("plain words", "a second"),
    ("", ""),
    ("naïve café — 🎬", None),
    ('he said "no", twice', "é"),
    ("two\nlines", "x"),
    (None, None),
    ("tab\there", "last"),
    ("  spaces kept ", "of them"),
]


def of_chunks(chunks: Iterable[ReadChunk]) -> list[tuple[str, str, str | None]]:
    """Return id, text and second text of each row, after a look at what must be so in every chunk."""
    found = []
    for chunk in chunks:
        assert chunk.letters is not None
        assert chunk.bases.dtype == np.uint8
        assert chunk.offsets[-1] == len(chunk.bases)
        rows = [chunk.bases[a:b].tobytes() for a, b in zip(chunk.offsets[:-1], chunk.offsets[1:], strict=True)]
        assert chunk.lengths.tolist() == [len(row.decode()) for row in rows]
        assert len(chunk) == len(rows) == len(chunk.ids)
        assert not chunk.mates.any()
        seconds = [-1] * len(rows) if chunk.second is None else chunk.second.tolist()
        for name, row, at in zip(chunk.ids.to_pylist(), rows, seconds, strict=True):
            assert at < 0 or row[at - 1 : at] == b"\n"
            found.append((name, row.decode(), None) if at < 0 else (name, row[: at - 1].decode(), row[at:].decode()))
    return found


def read(path: Path | str, columns: TextColumns | None = None, **options: Any) -> list[tuple[str, str, str | None]]:
    with Texts(path, columns or TextColumns(), **options) as texts:
        found = of_chunks(texts)
        assert texts.n_reads == len(found)
        assert texts.compressed_bytes_read == (texts.total_bytes or texts.compressed_bytes_read)
    return found


def read_until_damage(path: Path, columns: TextColumns | None = None) -> tuple[list[str], str]:
    """Return the texts that are given, and the error after them."""
    chunks: list[ReadChunk] = []
    try:
        with Texts(path, columns or TextColumns()) as texts:
            chunks += texts
    except InputError as error:
        return [text for _, text, _ in of_chunks(chunks)], str(error)
    raise AssertionError(f"no error from {path}")


def expected(pairs: Sequence[Pair], nulls: bool = True, first: int = 10) -> list[tuple[str, str, str | None]]:
    """Return what reading gives of these rows; without `nulls`, the format knows empty texts only."""
    rows = []
    for i, (text, second) in enumerate(pairs):
        other = second if nulls else second or ""
        rows.append((str(first + i), text or "", other if (text or other) and other is not None else None))
    return rows


def frame(pairs: Sequence[Pair]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "idx": range(10, 10 + len(pairs)),
            "sentence1": pd.Series([a for a, _ in pairs], dtype="object"),
            "sentence2": pd.Series([b for _, b in pairs], dtype="object"),
            "label": [0.5] * len(pairs),
        }
    )


def table(pairs: Sequence[Pair]) -> pa.Table:
    names = [pa.array(range(10, 10 + len(pairs))), *(pa.array([p[i] for p in pairs], pa.string()) for i in (0, 1))]
    return pa.table([*names, pa.array([0.5] * len(pairs))], ["idx", "sentence1", "sentence2", "label"])


def with_csv(path: Path, pairs: Sequence[Pair], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["idx", "sentence1", "sentence2", "label"])
        writer.writerows([10 + i, *pair, 0.5] for i, pair in enumerate(pairs))


def with_json(path: Path, pairs: Sequence[Pair], ascii_only: bool = False) -> None:
    rows = ({"idx": 10 + i, "sentence1": a, "sentence2": b} for i, (a, b) in enumerate(pairs))
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")


def with_duckdb(path: Path, pairs: Sequence[Pair], options: str) -> None:
    rows = table(pairs)  # noqa: F841 (duckdb finds it by its name)
    duckdb.execute(f"COPY (SELECT * FROM rows) TO '{path}' ({options})")


def packed(path: Path, how: str) -> Path:
    """Return a packed copy of a file."""
    data, copy = path.read_bytes(), path.with_name(path.name + how)
    if how == ".bgz":
        with pysam.BGZFile(str(copy), "wb") as file:
            file.write(data)
    else:
        copy.write_bytes(gzip.compress(data) if how == ".gz" else zstd.compress(data))
    return copy


WRITERS: dict[str, Callable[[Path, Sequence[Pair]], Any]] = {
    "csv.csv": with_csv,
    "csv.tsv": lambda path, pairs: with_csv(path, pairs, "\t"),
    "semicolons.csv": lambda path, pairs: with_csv(path, pairs, ";"),
    "pandas.csv": lambda path, pairs: frame(pairs).to_csv(path, index=False),
    "pandas.tsv": lambda path, pairs: frame(pairs).to_csv(path, index=False, sep="\t"),
    "bom.csv": lambda path, pairs: frame(pairs).to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n"),
    "polars.csv": lambda path, pairs: pl.from_arrow(table(pairs)).write_csv(path),  # type: ignore[union-attr]
    "arrow.csv": lambda path, pairs: pyarrow.csv.write_csv(table(pairs), path),
    "duckdb.csv": lambda path, pairs: with_duckdb(path, pairs, "FORMAT csv, HEADER"),
    "json.jsonl": with_json,
    "ascii.ndjson": lambda path, pairs: with_json(path, pairs, True),
    "pandas.jsonl": lambda path, pairs: frame(pairs).to_json(path, orient="records", lines=True),
    "polars.jsonl": lambda path, pairs: pl.from_arrow(table(pairs)).write_ndjson(path),  # type: ignore[union-attr]
    "duckdb.json": lambda path, pairs: with_duckdb(path, pairs, "FORMAT json"),
    "arrow.parquet": lambda path, pairs: pq.write_table(table(pairs), path, row_group_size=3),
    "pandas.parquet": lambda path, pairs: frame(pairs).to_parquet(path),
    "polars.parquet": lambda path, pairs: pl.from_arrow(table(pairs)).write_parquet(path),  # type: ignore[union-attr]
    "duckdb.parquet": lambda path, pairs: with_duckdb(path, pairs, "FORMAT parquet"),
    "polars.arrow": lambda path, pairs: pl.from_arrow(table(pairs)).write_ipc(path),  # type: ignore[union-attr]
}
