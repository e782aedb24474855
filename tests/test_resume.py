"""Runs that end before their end: what is finished stays, and --resume gives what one run would have given."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from commands import SMALL_CHUNKS, command_after, finished
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from read_files import random_fastq
from toy_engine import run_toy

from wyr_batch.errors import InputError, OutputError, UsageError
from wyr_batch.job.config import RunConfig
from wyr_batch.job.outputs import summary_json
from wyr_batch.rows.folder import parts_folder
from wyr_batch.rows.parts import Parts

WITH_ONNX = ["run", "--runtime", "onnx"]  # which starts soonest
RUN = [*command_after(*SMALL_CHUNKS), *WITH_ONNX]
SIGNAL_AFTER_TWO_PARTS = """
import os
from wyr_batch.rows.parts import Parts
finish_part = Parts.finish_part
def finish_and_signal(self, **last):
    finish_part(self, **last)
    if self.n_parts == 2:
        Parts.finish_part = finish_part
        os.kill(os.getpid(), {:d})
Parts.finish_part = finish_and_signal
"""


class Killed(BaseException):
    """Nothing runs after it, as after SIGKILL."""


def kill_after(n_batches: int) -> Callable[..., None]:
    left = [n_batches]

    def check(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return check


def run_until_killed(config: RunConfig, n_batches: int) -> bool:
    """Run serially until the n-th batch and die there; returns whether the run had ended before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "abandon", lambda self, damaged: self._unlock())
        try:
            run_toy(config, overlapped=False, check=kill_after(n_batches))
        except Killed:
            return False
    return True


@given(stops=st.lists(st.integers(0, 40), max_size=6), dataset=st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_killed_anywhere_and_resumed_is_one_run(
    small_chunks: None, tmp_path_factory: pytest.TempPathFactory, stops: list[int], dataset: bool
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    source = folder / "reads.fastq"
    source.write_text(random_fastq(300))
    whole, output = folder / "whole.parquet", folder / "masks.parquet"
    run_toy(RunConfig((str(source),), whole), overlapped=False)
    for n_batches in stops:
        config = RunConfig((str(source),), output, dataset=dataset, resume=True, part_s=0)
        if run_until_killed(config, n_batches):
            break
    stats = run_toy(RunConfig((str(source),), output, dataset=dataset, resume=True, part_s=0), overlapped=False)
    assert stats.n_reads == stats.counts.statuses.total() == 300
    made = ds.dataset(output).to_table() if dataset else pq.read_table(output)
    assert made.equals(pq.read_table(whole))
    assert dataset or not parts_folder(output).exists()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reads that make twelve parts of 20 kB: more than a run explains ahead of what it writes."""
    path = tmp_path_factory.mktemp("source") / "reads.fastq"
    path.write_text(random_fastq(1_500, most_bp=40))
    return path


@pytest.fixture(scope="module")
def whole(source: Path) -> pa.Table:
    """What one run gives."""
    output = source.parent / "whole.parquet"
    assert finished([*RUN, str(source), "-o", str(output)]).returncode == 0
    return pq.read_table(output)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_real_run_and_it_goes_on(
    number: signal.Signals, source: Path, whole: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "masks.parquet"
    words = [*WITH_ONNX, str(source), "--part-seconds", "0", "-o", str(output)]
    ended = finished([*command_after(*SMALL_CHUNKS, SIGNAL_AFTER_TWO_PARTS.format(number)), *words])
    assert not output.exists()
    assert {"part-000000.parquet", "part-000001.parquet"} <= {path.name for path in parts_folder(output).iterdir()}
    if number == signal.SIGKILL:
        assert ended.returncode == -signal.SIGKILL
    else:
        assert ended.returncode == 130, ended.stderr
        assert "reads are finished and kept" in ended.stderr
        assert "--resume" in ended.stderr
        assert "Traceback" not in ended.stderr
    again = finished([*command_after(*SMALL_CHUNKS), *words, "--resume"])
    assert again.returncode == 0, again.stderr
    assert "reads are finished; going on after them" in again.stderr
    assert pq.read_table(output).equals(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["masks.parquet"]


def stopped_run(folder: Path) -> tuple[RunConfig, Path]:
    source = folder / "reads.fastq"
    source.write_text(random_fastq(300))
    config = RunConfig((str(source),), folder / "masks.parquet", part_s=0)
    assert not run_until_killed(config, 12)
    return config, source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 3}, "top_k: was 1, is 3"),
        ({"mask_dtype": "uint8"}, "mask_dtype: was float32, is uint8"),
        ({"explain": ("family=b",)}, "explain: was [], is ['family=b']"),
    ],
)
def test_another_run_is_not_resumed(
    small_chunks: None, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    config, source = stopped_run(tmp_path)
    with pytest.raises(UsageError) as caught:
        run_toy(RunConfig(config.inputs, config.output, resume=True, **change))  # type: ignore[arg-type]
    assert message in str(caught.value)
    source.write_text(random_fastq(299))
    with pytest.raises(UsageError, match=r"reads\.fastq: bytes was \d+, is \d+"):
        run_toy(RunConfig(config.inputs, config.output, resume=True))
    with pytest.raises(OutputError, match="parts of a run that did not end"):
        run_toy(config)
    run_toy(RunConfig(config.inputs, config.output, overwrite=True))
    assert config.output.exists()


def test_a_damaged_input_may_be_mended_but_not_exchanged(
    small_chunks: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output, whole = tmp_path / "reads.fastq.gz", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    packed = gzip.compress(random_fastq(900).encode())
    source.write_bytes(packed[: len(packed) // 2])
    config = RunConfig((str(source),), output)
    with pytest.raises(InputError, match="end of the file inside gzip data"):
        run_toy(config)
    n_kept = pq.read_metadata(parts_folder(output) / "part-000000.parquet").num_rows
    assert 300 < n_kept < 600
    again = RunConfig((str(source),), output, resume=True)
    parts = shutil.copytree(parts_folder(output), tmp_path / "copy")
    source.write_bytes(gzip.compress(random_fastq(900, seed=2).encode()))
    with pytest.raises(InputError, match="other reads than those already explained"):
        run_toy(again)
    shutil.rmtree(parts_folder(output))
    parts.rename(parts_folder(output))
    source.write_bytes(packed)
    assert run_toy(again).n_resumed == n_kept
    run_toy(RunConfig((str(source),), whole))
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_a_finished_run_is_not_run_again(small_chunks: None, tmp_path: Path) -> None:
    source = tmp_path / "reads.fastq"
    source.write_text(random_fastq(100))
    for output in (tmp_path / "masks.parquet", tmp_path / "parts"):
        config = RunConfig((str(source),), output, dataset=output.name == "parts", resume=True)
        assert run_toy(config).this_run.n_reads == 100
        made = ds.dataset(output).to_table()
        again = run_toy(config)
        assert again.this_run.n_reads == 0
        assert again.counts.as_json()["reads"] == 100
        assert ds.dataset(output).to_table().equals(made)
        with pytest.raises(OutputError, match="--overwrite"):
            run_toy(RunConfig((str(source),), output))


def test_the_only_part_becomes_the_output_even_if_killed_before(small_chunks: None, tmp_path: Path) -> None:
    source, output, whole = tmp_path / "reads.fastq", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    source.write_text(random_fastq(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "_join", None)  # nothing is copied
        run_toy(RunConfig((str(source),), whole))
        patch.setattr(Parts, "_rename_only_part", kill_after(0))
        patch.setattr(Parts, "abandon", lambda self, damaged: self._unlock())
        with pytest.raises(Killed):
            run_toy(RunConfig((str(source),), output))
    assert run_toy(RunConfig((str(source),), output, resume=True)).this_run.n_reads == 0
    assert pq.read_table(output).equals(pq.read_table(whole))
    assert not parts_folder(output).exists()


def test_an_unfinished_run_of_two_at_once_is_refused(small_chunks: None, tmp_path: Path) -> None:
    config, _ = stopped_run(tmp_path)
    schema = pa.schema([("x", pa.int8())])
    first = Parts(
        config.output,
        schema,
        {"version": "", "bundle_sha256": "", "inputs": [], "options": {}, "footer": {}},
        overwrite=True,
    )
    with pytest.raises(OutputError, match="still writing"):
        run_toy(RunConfig(config.inputs, config.output, resume=True))
    first.abandon()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if finished(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_keeps_finished_parts_and_resumes_once_there_is_room(
    small_disk: Path, source: Path, whole: pa.Table
) -> None:
    output = small_disk / "masks.parquet"
    words = [*RUN, str(source), "-o", str(output), "--part-seconds", "0"]
    full = finished(words)
    assert full.returncode == 1, full.stderr
    assert "parquet: got 'No space left on device' while writing" in full.stderr
    assert "reads are finished and kept" in full.stderr
    assert "Traceback" not in full.stderr
    kept = list(parts_folder(output).glob("*.parquet"))
    assert kept
    assert not list(parts_folder(output).glob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert finished([*words, "--resume"]).returncode == 0
    assert pq.read_table(output).equals(whole)


def test_a_limit_on_file_sizes_is_met_as_a_full_disk_is(source: Path, tmp_path: Path) -> None:
    """Parts fit, what they are joined to does not."""
    output = tmp_path / "masks.parquet"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    full = finished([*RUN, str(source), "-o", str(output), "--part-seconds", "0"], preexec_fn=limit)
    assert full.returncode == 1, full.stderr
    assert "parquet: got 'File too large' while writing" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(parts_folder(output).glob("*.partial"))


def test_the_summary_counts_the_whole_output(small_chunks: None, tmp_path: Path) -> None:
    config, source = stopped_run(tmp_path)
    stats = run_toy(RunConfig(config.inputs, config.output, resume=True))
    summary = json.loads(summary_json(stats, config))
    assert summary["reads"] == sum(summary["statuses"].values()) == 300
    assert 0 < summary["reads_resumed"] < 300
    text = source.read_text().splitlines()
    assert summary["bases"] == sum(len(line) for line in text[1::4])
    assert summary["statuses"]["empty"] == sum(not line for line in text[1::4])
    assert os.listdir(tmp_path).count("masks.parquet") == 1
