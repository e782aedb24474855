"""End to end on the example reads with the built-in starter: what a user gets, and that it is the same every way."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from same_rows import differences

import wyr_batch
from wyr_batch.api import run
from wyr_batch.bundle import load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.cli import main
from wyr_batch.engines.base import Engine
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
TOLERANCE = 1e-5


def read_fastq(path: Path) -> list[tuple[str, str]]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [(lines[i][1:], lines[i + 1]) for i in range(0, len(lines), 4)]


def explain(folder: Path, reads: Sequence[tuple[str, str]], engine: Engine, **options: Any) -> list[dict[str, Any]]:
    source, output = folder / "in.fasta", folder / "out.parquet"
    source.write_text("".join(f">{name}\n{bases}\n" for name, bases in reads))
    run(RunConfig((str(source),), output, overwrite=True, **options), engines=[engine])
    return pq.read_table(output).to_pylist()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(load_bundle(), EngineRequest("cpu", "auto", "auto", available_cpus())) as opened:
        yield opened


@pytest.fixture(scope="module")
def reads() -> list[tuple[str, str]]:
    return read_fastq(EXAMPLES / "reads.fastq.gz")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "masks.parquet"
    assert main(["run", str(EXAMPLES / "reads.fastq.gz"), "-q", "-o", str(output)]) == 0
    return output


def test_one_row_per_read_with_every_column(masks: Path, reads: list[tuple[str, str]]) -> None:
    table = duckdb.read_parquet(str(masks))
    columns = ["read_id", "mate", "length", "n_tokens", "status", "mask", "token_start", "segments", "mask_mean"]
    for rank in load_bundle().ranks:
        columns += [rank.name, f"{rank.name}_prob", f"{rank.name}_masked", f"{rank.name}_masked_prob"]
    assert table.columns == columns
    rows = table.project("read_id, length, n_tokens, len(mask), list_min(mask), list_max(mask), mask_mean").fetchall()
    assert [row[0] for row in rows] == [name for name, _ in reads]
    assert [row[1] for row in rows] == [len(bases) for _, bases in reads]
    for _, _, n_tokens, n_values, least, most, mean in rows:
        assert n_tokens == n_values
        assert 0 <= least <= mean <= most <= 1
    segments = f"(select length, unnest(segments) as s from '{masks}')"
    odd = f"select count(*) from {segments} where s.start < 0 or s.start >= s.end or s.end > length or s.mean < 0.5"
    assert duckdb.sql(odd).fetchall() == [(0,)]
    assert duckdb.sql(f"select count(*) from {segments}").fetchall() > [(0,)]
    footer = json.loads(pq.read_schema(masks).metadata[b"wyr"])
    assert footer["bundle_sha256"] == load_bundle().sha256


def test_token_start_and_masks_of_reads_with_n(engine: Engine, tmp_path: Path) -> None:
    row = explain(tmp_path, [("n", "ACGTACNNTTRYGACGTACA")], engine)[0]
    assert row["token_start"] == [0, 6, 7, 8, 9, 10, 12, 18, 19]
    assert len(row["mask"]) == 9


def test_rows_do_not_depend_on_company_batch_or_order(
    engine: Engine, tmp_path: Path, reads: list[tuple[str, str]]
) -> None:
    long_read = ("long", "".join(bases for _, bases in reads[:20]))
    some = [*reads[:40], ("empty", ""), ("one", "A"), long_read, ("n", "ACGTAC" * 10 + "N" * 9 + "ACGT" * 9)]
    columns = {"top_k": 3, "rank_masks": True}
    together = explain(tmp_path, some, engine, **columns)
    assert [row["status"] for row in together[-4:]] == ["empty", "ok", "windowed", "ok"]
    for batch_tokens in (100, 1, 100_000):
        other = explain(tmp_path, some, engine, **columns, max_batch_tokens=batch_tokens)
        for row, twin in zip(together, other, strict=True):
            assert not differences(row, twin, TOLERANCE), batch_tokens
    turned = explain(tmp_path, some[::-1], engine, **columns)[::-1]
    for row, twin in zip(together, turned, strict=True):
        assert not differences(row, twin, TOLERANCE)
    for index in (0, 17, -3, -2, -1):
        alone = explain(tmp_path, [some[index]], engine, **columns)[0]
        assert not differences(together[index], alone, TOLERANCE)


@pytest.mark.parametrize("other", [("onnx", 1), ("onnx", 2), ("torch", 1)], ids=str)
def test_runtimes_and_threads_agree(
    other: tuple[str, int], engine: Engine, tmp_path: Path, reads: list[tuple[str, str]]
) -> None:
    runtime, n_threads = other
    rows = explain(tmp_path, reads[:64], engine)
    with open_engine(load_bundle(), EngineRequest("cpu", runtime, "float32", n_threads)) as twin_engine:
        for row, twin in zip(rows, explain(tmp_path, reads[:64], twin_engine), strict=True):
            assert not differences(row, twin, TOLERANCE)


def test_python_gives_what_the_command_gives(masks: Path, reads: list[tuple[str, str]]) -> None:
    rows = pq.read_table(masks).slice(0, 8).to_pylist()
    with wyr_batch.load() as masker:
        predictions = masker.predict([bases for _, bases in reads[:8]])
        ranks = [rank.name for rank in masker.bundle.ranks]
    for row, prediction in zip(rows, predictions, strict=True):
        np.testing.assert_allclose(prediction.mask, row["mask"], atol=TOLERANCE)
        assert prediction.labels == tuple(row[rank] for rank in ranks)
        assert prediction.masked_labels == tuple(row[f"{rank}_masked"] for rank in ranks)


def test_starter_beats_chance_on_the_example_and_masks_keep_its_calls(masks: Path) -> None:
    """Far above chance: a starter that stopped working would not pass, one that is retrained will."""
    rows = {row["read_id"]: row for row in pq.read_table(masks).to_pylist()}
    with (EXAMPLES / "truth.tsv").open() as file:
        truth = list(csv.DictReader(file, delimiter="\t"))
    for rank in load_bundle().ranks:
        labelled = [(rows[t["read_id"]], t[rank.name]) for t in truth if t[rank.name]]
        right = sum(row[rank.name] == label for row, label in labelled) / len(labelled)
        assert right > 3 / len(rank.labels) or right > 0.4
        kept = sum(row[rank.name] == row[f"{rank.name}_masked"] for row, _ in labelled) / len(labelled)
        assert kept > 0.8
