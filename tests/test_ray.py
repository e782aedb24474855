"""`run --ray`: the rows of a local run, exactly once, whoever dies. A real Ray on this machine, with two workers."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import os
import re
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from read_files import random_fastq

from wyr_batch import api
from wyr_batch.bundle import Bundle
from wyr_batch.cli import main
from wyr_batch.cluster import run as cluster
from wyr_batch.cluster import units, worker
from wyr_batch.errors import InputError, OutputError
from wyr_batch.job import progress
from wyr_batch.job.config import RunConfig
from wyr_batch.reads import stream
from wyr_batch.reads.open import open_reads
from wyr_batch.rows.folder import parts_folder
from wyr_batch.rows.parts import Parts

# Ray Data warns of settings of its own whenever it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

N_READS, N_UNITS = 300, 6
ONNX = {"runtime": "onnx", "threads": 1}  # which starts soonest


@pytest.fixture(scope="module", autouse=True)
def two_workers() -> Iterator[None]:
    """A Ray of two CPUs, which every run in this process then uses."""
    ray = cluster._ray()
    options = {
        "include_dashboard": False,
        "log_to_driver": False,
        "object_store_memory": 200_000_000,
        "logging_level": "ERROR",
    }
    ray.init(address="local", num_cpus=2, **options)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray kills its processes and does not wait for them
        ray.shutdown()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Iterator[None]:
    """Chunks of 25 reads and units of 50, here and on the workers, so that a few hundred reads are many units."""

    def read(_: pa.Table, reading: units.Reading) -> Iterator[pa.Table]:  # a closure, so Ray sends it by value
        stream.open_reads = partial(open_reads, chunk_reads=25)
        yield from units.read_units(reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "open_reads", partial(open_reads, chunk_reads=25))
        patch.setattr(units, "UNIT_READS", N_READS // N_UNITS)
        patch.setattr(cluster, "_read", read)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "reads.fastq"
    path.write_text(random_fastq(N_READS))
    return str(path)


@pytest.fixture(scope="module")
def whole(small_units: None, source: str, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What a local run gives."""
    output = tmp_path_factory.mktemp("whole") / "whole.parquet"
    api.run(RunConfig((source,), output, **ONNX))
    return pq.read_table(output)


def test_rows_are_those_of_a_local_run(whole: pa.Table, source: str, tmp_path: Path) -> None:
    output = tmp_path / "masks.parquet"
    stats = api.run(RunConfig((source,), output, **ONNX, ray="local"))
    assert pq.read_table(output).equals(whole)
    assert whole["read_id"].to_pylist() == [f"r{i}" for i in range(N_READS)]
    assert stats.n_reads == stats.this_run.n_reads == stats.counts.statuses.total() == N_READS
    assert stats.counts.statuses["empty"] == whole["status"].to_pylist().count("empty") > 0
    assert stats.stage_s["explain"] > 0
    assert stats.n_padded_tokens > stats.n_run_tokens > stats.counts.n_tokens
    assert not parts_folder(output).exists()


def dying_worker(folder: Path, before: set[int], after: set[int]) -> type:
    """Return a worker that dies once before it explains some units, and once after it has written others."""

    class Dying(worker.UnitWorker):
        def explain(self, unit: units.Unit) -> dict[str, Any]:
            if unit.number in before:
                self.die(unit)
            result = super().explain(unit)
            if unit.number in after:
                self.die(unit)
            return result

        def die(self, unit: units.Unit) -> None:
            mark = folder / f"died-{unit.number}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return Dying


def test_killed_workers_lose_nothing_and_double_nothing(
    whole: pa.Table,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cluster, "UnitWorker", dying_worker(tmp_path, before={1}, after={3}))
    output = tmp_path / "masks"
    stats = api.run(RunConfig((source,), output, **ONNX, dataset=True, ray="local"))
    assert {path.name for path in tmp_path.glob("died-*")} == {"died-1", "died-3"}
    assert caplog.text.count("a worker died; Ray has started another one") == 2
    assert ds.dataset(output).to_table().equals(whole)
    assert stats.n_reads == N_READS
    assert len(list(output.iterdir())) == N_UNITS + 1, "the last, without rows, ends it"


def failing_worker(parts: Path, failing: int, error: Exception) -> type:
    """Return a worker that fails on a unit, once all units before it are written, and one after it."""

    class Failing(worker.UnitWorker):
        def explain(self, unit: units.Unit) -> dict[str, Any]:
            if unit.number != failing:
                return super().explain(unit)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                written = {int(path.stem.removeprefix("part-")) for path in parts.glob("part-*.parquet")}
                if written > set(range(failing)):
                    break
                time.sleep(0.01)
            raise error

    return Failing


@pytest.fixture(scope="module")
def stopped(whole: pa.Table, source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of a run that was ended by an error of its third unit."""
    output = tmp_path_factory.mktemp("stopped") / "masks.parquet"
    error = OutputError("part 2", "a full disk", "space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "UnitWorker", failing_worker(parts_folder(output), 2, error))
        with pytest.raises(OutputError, match="got a full disk, expected space") as caught:
            api.run(RunConfig((source,), output, **ONNX, ray="local"))
    assert caught.value.exit_code == 1
    return parts_folder(output)


@pytest.mark.parametrize("again", ["local", None])
def test_a_workers_error_arrives_and_finished_units_are_used_again(
    stopped: Path, whole: pa.Table, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str | None
) -> None:
    output = tmp_path / "masks.parquet"
    shutil.copytree(stopped, parts_folder(output))
    there = {path.name: path.stat().st_mtime_ns for path in parts_folder(output).glob("part-*.parquet")}
    assert {"part-000000.parquet", "part-000001.parquet"} < there.keys(), "and one after the part that is missing"
    assert "part-000002.parquet" not in there
    kept: dict[str, int] = {}
    join = Parts._join

    def look_and_join(parts: Parts) -> None:
        kept.update({path.name: path.stat().st_mtime_ns for path in parts._paths})
        join(parts)

    monkeypatch.setattr(Parts, "_join", look_and_join)
    stats = api.run(RunConfig((source,), output, **ONNX, ray=again, resume=True))
    assert stats.n_resumed == 100
    assert pq.read_table(output).equals(whole)
    if again:
        assert there.items() <= kept.items()


def test_damaged_input_ends_as_a_local_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = gzip.compress(random_fastq(N_READS).encode())
    damaged = tmp_path / "reads.fastq.gz"
    damaged.write_bytes(packed[: len(packed) * 2 // 3])
    outputs, says = [tmp_path / "local.parquet", tmp_path / "ray.parquet"], []
    run = ["run", str(damaged), "--runtime", "onnx", "-t", "1", "-o"]
    for output in outputs:
        more = ["--ray", "local"] if output.stem == "ray" else []
        assert main([*run, str(output), *more]) == 1
        lines = capsys.readouterr().err.replace(output.stem, "X").splitlines()
        says.append([line for line in lines if "gzip" in line or "are finished and kept" in line])
    assert len(says[0]) == 2
    assert says[0] == says[1]
    damaged.write_bytes(packed)
    for output in outputs:
        assert main([*run, str(output), "-q", "--resume"]) == 0
    local, on_ray = (pq.read_table(output, columns=["read_id", "status", "genus"]) for output in outputs)
    assert on_ray["read_id"].to_pylist() == [f"r{i}" for i in range(N_READS)]
    assert on_ray.equals(local)


def test_texts_are_rows_and_words_of_texts(
    exported_texts: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(5, 60, n)) for n in rng.integers(0, 40, 180)]
    paths = [tmp_path / name for name in ("a.jsonl", "b.csv", "c.jsonl")]
    paths[0].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:60]))
    paths[1].write_text("text\n" + "".join(f'"{text}"\n' for text in texts[60:120]))
    lines = [json.dumps({"text": text, "n": 1}) + "\n" for text in texts[120:]]
    paths[2].write_text("".join([*lines[:40], "{broken\n", *lines[40:]]))
    on_ray, local = (
        RunConfig(tuple(map(str, paths)), tmp_path / name, model=exported_texts.folder, text_column="text", **ONNX)
        for name in ("ray.parquet", "local.parquet")
    )
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    caplog.set_level(logging.INFO, "wyr_batch")
    with pytest.raises(InputError, match=r"c\.jsonl, line 41: got "):
        api.run(replace(on_ray, ray="local"), progress=True)
    assert len(list(parts_folder(on_ray.output).glob("part-*.parquet"))) == 3
    assert re.search(r"^\d+ texts, [\d,]+ texts/s, [\d,.]+ tokens/s, ", "\n".join(caplog.messages), re.MULTILINE)
    assert "160 texts are finished and kept" in caplog.text
    assert not re.search(r"\breads\b", caplog.text)
    paths[2].write_text("".join(lines))
    assert api.run(replace(on_ray, resume=True)).n_resumed == 160
    api.run(local)
    made, wanted = pq.read_table(on_ray.output), pq.read_table(local.output)
    assert wanted["length"].to_pylist() == list(map(len, texts))
    assert made.equals(wanted)


def test_what_is_not_there_is_said_before_anything_is_written(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "-o", str(tmp_path / "masks.parquet"), "--ray", "local"]
    for code, more, message in (
        (1, [source, "--dtype", "float16"], "expected onnx float16"),
        (1, [str(tmp_path / "none.fastq")], "none.fastq: got"),
        (2, [source, "-t", "3"], "--threads: got 3 with --ray, expected 2 at most, the CPUs of the largest machine"),
        (2, [source, "--device", "cuda"], "expected a machine with a GPU"),
        (2, [source, "--device", "cuda:1"], "expected cuda: Ray gives a worker its GPU"),
        (2, ["-"], "--ray: got - as input, expected files"),
    ):
        assert main([*run, *more]) == code
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
