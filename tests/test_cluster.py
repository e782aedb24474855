"""Runs on a cluster, as far as no cluster is needed: workers, units and errors as they travel, parts written once."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_files import random_fastq

from wyr_batch import __version__
from wyr_batch.bundle import load_bundle
from wyr_batch.cli import main
from wyr_batch.cluster import run as cluster
from wyr_batch.cluster import units, worker
from wyr_batch.cluster.run import pool_for
from wyr_batch.draw.kinds import KINDS, Kind
from wyr_batch.errors import EngineError, InputError, ModelError, OutputError, UsageError
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.digest import ReadsDigest
from wyr_batch.reads.open import open_reads
from wyr_batch.rows.counts import Counts
from wyr_batch.rows.folder import footer_of
from wyr_batch.rows.manifest import MANIFEST_NAME
from wyr_batch.rows.parts import Parts


def test_the_address_is_not_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-o", str(tmp_path / "x.parquet"), "a.fastq", "--ray", "reads.fastq.gz"]) == 2
    assert "--ray: got 'reads.fastq.gz', expected auto, local, HOST:PORT" in capsys.readouterr().err
    for address in ("", "auto", "local", "10.0.0.1:6379", "head.cluster:6379", "ray://head:10001", "[::1]:6379"):
        RunConfig(("a.fastq",), tmp_path / "x.parquet", ray=address)


def test_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", str(tmp_path / "reads.fastq"), "-o", str(tmp_path / "masks.parquet"), "--ray"]) == 2
    assert "--ray: got no package 'ray', expected it to be installed. Run: pip install 'wyr-batch[ray]'" in (
        capsys.readouterr().err
    )


def test_pool_leaves_the_reader_its_share() -> None:
    def nodes(*resources: tuple[int, int]) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in resources]

    config = RunConfig(("a.fastq",), Path("x.parquet"))
    for cpus in (1, 2, 7, 64):
        pool = pool_for(config, nodes((cpus, 0)))
        assert pool.n_workers == cpus
        assert pool.n_workers * pool.num_cpus + cluster.READER_CPUS <= cpus
    four = RunConfig(config.inputs, config.output, threads=4)
    dead = [{"Alive": False, "Resources": {"CPU": 32.0}}]
    assert pool_for(four, nodes((9, 0), (3, 0), (4, 0)) + dead) == cluster.Pool(3, 4, 3.5, 0)
    cuda = RunConfig(config.inputs, config.output, device="cuda", threads=4)
    assert pool_for(cuda, nodes((16, 2), (4, 8), (32, 0))) == cluster.Pool(3, 4, 3.5, 1)
    with pytest.raises(UsageError, match="expected a machine with a GPU and 4 CPUs"):
        pool_for(cuda, nodes((2, 1), (8, 0)))


def test_units_travel_whole_and_are_cut_the_same_each_time(tmp_path: Path) -> None:
    source = tmp_path / "reads.fastq"
    source.write_text(random_fastq(400))
    config = RunConfig((str(source), str(source)), tmp_path / "x.parquet")
    reading = units.Reading(config, str(tmp_path), unit_reads=300, unit_bases=1 << 30)
    tables = list(units.read_units(reading))
    assert [t.to_pylist() for t in tables] == [t.to_pylist() for t in units.read_units(reading)]
    found = [units.unit_from_table(table) for table in tables]
    assert [(u.number, u.first_read, u.n_reads) for u in found] == [(0, 0, 400), (1, 400, 400)]
    digest = ReadsDigest()
    with open_reads(source) as reads:
        (chunk,) = reads
    for unit in found:
        (there,) = unit.chunks
        assert digest.add(chunk) == unit.digest
        assert there.ids.equals(chunk.ids)
        for name in ("mates", "bases", "offsets"):
            assert np.array_equal(getattr(there, name), getattr(chunk, name)), name
        assert (there.source, there.first_record) == (str(source), 1)
    later = units.Reading(config, str(tmp_path), 1, 400, found[0].digest, 300)
    assert next(iter(units.read_units(later))).equals(tables[1])
    few = units.Reading(config, str(tmp_path), unit_bases=10)
    assert [units.unit_from_table(table).n_reads for table in units.read_units(few)] == [400, 400]


def test_errors_travel_as_what_they_are() -> None:
    error = units.error_from(units.about_from_table(units.table_from_error(InputError("x", "a", "b", "Do c."))))
    assert type(error) is InputError
    assert str(error) == "x: got a, expected b. Do c."
    missing = units.table_from_error(cluster.MissingExtraError("--ray", "ray", "ray"))
    assert "pip install 'wyr-batch[ray]'" in str(units.error_from(units.about_from_table(missing)))


@pytest.fixture
def orders(tmp_path: Path) -> worker.WorkerConfig:
    config = RunConfig(("reads",), tmp_path / "x.parquet", threads=1, device="cpu")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / MANIFEST_NAME).touch()
    run = {"footer": {}, "options": {"top_k": 1}}
    return worker.WorkerConfig(config, str(tmp_path), __version__, load_bundle().sha256, str(tmp_path / "parts"), run)


def test_a_unit_twice_is_one_part(orders: worker.WorkerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = worker.UnitWorker(orders)
    chunk = ReadChunk.from_sequences(["ACGTACGTTTGACCANNGACCAGT", "", "ACG"])
    unit = units.table_from_unit(units.Unit(4, 100, (1, 2, 3), [chunk, chunk]))
    first = units.about_from_table(explainer(unit))
    path = Path(orders.parts) / "part-000004.parquet"
    made = path.read_bytes()
    assert first["counts"]["reads"] == pq.read_metadata(path).num_rows == 6
    assert footer_of(path)["wyr_part"]["first_read"] == 100
    with monkeypatch.context() as patch:
        patch.setattr(explainer, "steps", [])  # nothing is explained again
        assert units.about_from_table(explainer(unit))["counts"] == first["counts"]
    explainer(units.table_from_unit(units.Unit(4, 100, (1, 2, 4), [chunk])))  # other reads: another part
    assert pq.read_metadata(path).num_rows == 3
    explainer(unit)
    assert path.read_bytes() == made


@pytest.mark.parametrize("kind", KINDS.values())
def test_reads_that_kill_every_worker_end_the_run(kind: Kind, orders: worker.WorkerConfig) -> None:
    for i in range(worker.MAX_DEATHS + 1):
        (Path(orders.parts) / f"part-000000.parquet.{i}.partial").touch()
    chunk = ReadChunk.from_sequences(["ACGTACGTTTGACCANNGACCAGT"])
    one = worker.UnitWorker(orders)
    one.job.kind = kind.name
    about = units.about_from_table(one(units.table_from_unit(units.Unit(0, 0, (0,), [chunk]))))
    with pytest.raises(EngineError, match=f"{kind.rows} from 1: got 4 workers that died on them"):
        raise units.error_from(about)


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_worker_that_died_is_told_of(kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts(tmp_path / "masks", pa.schema([("x", pa.int8())]), {"inputs": [], "options": {}, "footer": {}})
    result = {"unit": 1, "counts": Counts(n_reads=0).as_json(), "digest": [0], "n_run_tokens": 0, "n_padded_tokens": 0}
    more = {"n_repeats": 0, "stage_s": {}, "share": None, "replaces": True, "worker": "one"}
    cluster._Found(parts, RunStats(kind=kind)).add({**result, **more})
    assert f"Ray has started another one (one) and given it the {kind.rows} again" in caplog.text
    parts.abandon()


def test_machines_must_have_the_same_model_and_the_output(orders: worker.WorkerConfig, tmp_path: Path) -> None:
    chunk = ReadChunk.from_sequences(["ACGTACGTTTGACCANNGACCAGT"])
    unit = units.table_from_unit(units.Unit(0, 0, (0,), [chunk]))
    for change, kind, message in (
        ({"version": "0.0.9"}, ModelError, r"wyr-batch on .*: got 0\.1\.0, expected 0\.0\.9"),
        ({"bundle_sha256": "f" * 64}, ModelError, "starter on .*: got .*, expected ffff"),
        ({"parts": str(tmp_path / "none")}, OutputError, "none: got no such folder on"),
    ):
        other = worker.UnitWorker(dataclasses.replace(orders, **change))
        with pytest.raises(kind, match=message):
            raise units.error_from(units.about_from_table(other(unit)))


@pytest.mark.parametrize("dataset", [False, True])
def test_a_part_written_elsewhere_is_missed(tmp_path: Path, dataset: bool) -> None:
    run = {"inputs": [], "options": {}, "footer": {}}
    parts = Parts(tmp_path / "masks", pa.schema([("x", pa.int8())]), run, dataset=dataset, keep_later=True)
    parts.take(Counts(n_reads=5), (1, 2, 3))
    with pytest.raises(OutputError, match=r"part-000000\.parquet: got no such part, nor 0 others"):
        parts.commit()
    parts.abandon()
