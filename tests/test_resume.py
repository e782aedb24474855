"""Runs that end before their end: what is finished stays, and --resume gives what one run would have given."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wyr_batch import api
from wyr_batch.errors import InputError, OutputError, UsageError
from wyr_batch.job.config import RunConfig
from wyr_batch.rows.folder import parts_folder
from wyr_batch.rows.parts import Parts

# A run in a process of its own, in chunks of 256 reads, so that few reads make many parts.
CODE = """
import sys
from functools import partial
from wyr_batch.reads import stream
from wyr_batch.cli import main
stream.open_reads = partial(stream.open_reads, chunk_reads=256)
sys.exit(main(sys.argv[1:]))
"""
RUN = [sys.executable, "-c", CODE, "run"]


def fastq(n: int, seed: int = 1, most_bp: int = 90) -> str:
    chosen = random.Random(seed)
    reads = ["".join(chosen.choices("ACGTN", [9, 9, 9, 9, 1], k=chosen.randint(0, most_bp))) for _ in range(n)]
    return "".join(f"@r{i}\n{read}\n+\n{'I' * len(read)}\n" for i, read in enumerate(reads))


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
            api.run(config, overlapped=False, check=kill_after(n_batches))
        except Killed:
            return False
    return True


@given(stops=st.lists(st.integers(0, 40), max_size=6), dataset=st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_killed_anywhere_and_resumed_is_one_run(
    toy: None, tmp_path_factory: pytest.TempPathFactory, stops: list[int], dataset: bool
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    source = folder / "reads.fastq"
    source.write_text(fastq(300))
    whole, output = folder / "whole.parquet", folder / "masks.parquet"
    api.run(RunConfig((str(source),), whole), overlapped=False)
    for n_batches in stops:
        config = RunConfig((str(source),), output, dataset=dataset, resume=True, part_s=0)
        if run_until_killed(config, n_batches):
            break
    stats = api.run(RunConfig((str(source),), output, dataset=dataset, resume=True, part_s=0), overlapped=False)
    assert stats.n_reads == stats.counts.statuses.total() == 300
    made = ds.dataset(output).to_table() if dataset else pq.read_table(output)
    assert made.equals(pq.read_table(whole))
    assert dataset or not parts_folder(output).exists()


def kill_once_there(output: Path, command: list[str], number: int, n_parts: int = 2) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while len(list(parts_folder(output).glob("part-*.parquet"))) < n_parts and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_real_run_and_it_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    source, output, whole = tmp_path / "reads.fastq", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    source.write_text(fastq(6_000))
    command = [*RUN, str(source), "--part-seconds", "0", "-b", "2048"]
    process = kill_once_there(output, [*command, "-o", str(output)], number)
    _, err = process.communicate()
    assert not output.exists()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, err
        assert "reads are finished and kept" in err
        assert "--resume" in err
        assert "Traceback" not in err
    again = subprocess.run([*command, "-o", str(output), "--resume"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "reads are finished; going on after them" in again.stderr
    assert subprocess.run([*command, "-q", "-o", str(whole)]).returncode == 0
    assert pq.read_table(output).equals(pq.read_table(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.parquet", "reads.fastq", "whole.parquet"]


def stopped_run(folder: Path) -> tuple[RunConfig, Path]:
    source = folder / "reads.fastq"
    source.write_text(fastq(300))
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
def test_another_run_is_not_resumed(toy: None, tmp_path: Path, change: dict[str, object], message: str) -> None:
    config, source = stopped_run(tmp_path)
    with pytest.raises(UsageError) as caught:
        api.run(RunConfig(config.inputs, config.output, resume=True, **change))  # type: ignore[arg-type]
    assert message in str(caught.value)
    source.write_text(fastq(299))
    with pytest.raises(UsageError, match=r"reads\.fastq: bytes was \d+, is \d+"):
        api.run(RunConfig(config.inputs, config.output, resume=True))
    with pytest.raises(OutputError, match="parts of a run that did not end"):
        api.run(config)
    api.run(RunConfig(config.inputs, config.output, overwrite=True))
    assert config.output.exists()


def test_a_damaged_input_may_be_mended_but_not_exchanged(
    toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output, whole = tmp_path / "reads.fastq.gz", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    packed = gzip.compress(fastq(900).encode())
    source.write_bytes(packed[: len(packed) // 2])
    config = RunConfig((str(source),), output)
    with pytest.raises(InputError, match="end of the file inside gzip data"):
        api.run(config)
    n_kept = pq.read_metadata(parts_folder(output) / "part-000000.parquet").num_rows
    assert 300 < n_kept < 600
    again = RunConfig((str(source),), output, resume=True)
    parts = shutil.copytree(parts_folder(output), tmp_path / "copy")
    source.write_bytes(gzip.compress(fastq(900, seed=2).encode()))
    with pytest.raises(InputError, match="other reads than those already explained"):
        api.run(again)
    shutil.rmtree(parts_folder(output))
    parts.rename(parts_folder(output))
    source.write_bytes(packed)
    assert api.run(again).n_resumed == n_kept
    api.run(RunConfig((str(source),), whole))
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_a_finished_run_is_not_run_again(toy: None, tmp_path: Path) -> None:
    source = tmp_path / "reads.fastq"
    source.write_text(fastq(100))
    for output in (tmp_path / "masks.parquet", tmp_path / "parts"):
        config = RunConfig((str(source),), output, dataset=output.name == "parts", resume=True)
        assert api.run(config).this_run.n_reads == 100
        made = ds.dataset(output).to_table()
        again = api.run(config)
        assert again.this_run.n_reads == 0
        assert again.counts.as_json()["reads"] == 100
        assert ds.dataset(output).to_table().equals(made)
        with pytest.raises(OutputError, match="--overwrite"):
            api.run(RunConfig((str(source),), output))


def test_the_only_part_becomes_the_output_even_if_killed_before(toy: None, tmp_path: Path) -> None:
    source, output, whole = tmp_path / "reads.fastq", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    source.write_text(fastq(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "_join", None)  # nothing is copied
        api.run(RunConfig((str(source),), whole))
        patch.setattr(Parts, "_rename_only_part", kill_after(0))
        patch.setattr(Parts, "abandon", lambda self, damaged: self._unlock())
        with pytest.raises(Killed):
            api.run(RunConfig((str(source),), output))
    assert api.run(RunConfig((str(source),), output, resume=True)).this_run.n_reads == 0
    assert pq.read_table(output).equals(pq.read_table(whole))
    assert not parts_folder(output).exists()


def test_an_unfinished_run_of_two_at_once_is_refused(toy: None, tmp_path: Path) -> None:
    config, _ = stopped_run(tmp_path)
    schema = pa.schema([("x", pa.int8())])
    first = Parts(
        config.output,
        schema,
        {"version": "", "bundle_sha256": "", "inputs": [], "options": {}, "footer": {}},
        overwrite=True,
    )
    with pytest.raises(OutputError, match="still writing"):
        api.run(RunConfig(config.inputs, config.output, resume=True))
    first.abandon()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_finished_parts_and_resumes_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    source, output, whole = tmp_path / "reads.fastq", small_disk / "masks.parquet", tmp_path / "whole.parquet"
    source.write_text(fastq(3_000, most_bp=40))
    command = [*RUN, str(source), "-o", str(output), "--part-seconds", "0"]
    full = subprocess.run(command, capture_output=True, text=True)
    assert full.returncode == 1, full.stderr
    assert "parquet: got 'No space left on device' while writing" in full.stderr
    assert "reads are finished and kept" in full.stderr
    assert "Traceback" not in full.stderr
    kept = list(parts_folder(output).glob("*.parquet"))
    assert kept
    assert not list(parts_folder(output).glob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert subprocess.run([*command, "--resume"]).returncode == 0
    assert subprocess.run([*RUN, str(source), "-q", "-o", str(whole)]).returncode == 0
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_a_limit_on_file_sizes_is_met_as_a_full_disk_is(tmp_path: Path) -> None:
    source, output = tmp_path / "reads.fastq", tmp_path / "masks.parquet"
    source.write_text(fastq(2_000, most_bp=40))
    command = [*RUN, str(source), "-o", str(output), "--part-seconds", "0"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 1, full.stderr
    assert "parquet: got 'File too large' while writing" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(parts_folder(output).glob("*.partial"))


def test_the_summary_counts_the_whole_output(toy: None, tmp_path: Path) -> None:
    config, source = stopped_run(tmp_path)
    stats = api.run(RunConfig(config.inputs, config.output, resume=True))
    summary = json.loads(api.summary_json(stats, config))
    assert summary["reads"] == sum(summary["statuses"].values()) == 300
    assert 0 < summary["reads_resumed"] < 300
    text = source.read_text().splitlines()
    assert summary["bases"] == sum(len(line) for line in text[1::4])
    assert summary["statuses"]["empty"] == sum(not line for line in text[1::4])
    assert os.listdir(tmp_path).count("masks.parquet") == 1
