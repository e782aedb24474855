"""The commands as a user meets them: help, versions, and what bad input says. No torch is needed to run."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import WYR_BATCH, command_after

from wyr_batch import __version__
from wyr_batch.cli import COMMANDS, main

EXAMPLE = Path(__file__).parents[1] / "examples" / "reads.fastq.gz"
RECORD = "@r{n}\nACGTACGTACGTACGTACGT\n+\nIIIIIIIIIIIIIIIIIIII\n"


def fastq(n: int) -> str:
    return "".join(RECORD.format(n=i + 1) for i in range(n))


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wyr-batch {__version__}\n"


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), ["train", "explainer"]])
def test_every_command_has_help_with_two_commands_to_paste(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.count("wyr-batch ") >= 3, "usage, and two examples"


def test_help_and_run_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from wyr_batch.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pysam', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"assert main(['run', {str(EXAMPLE)!r}, '-n', '5', '-o', {str(tmp_path / 'm.parquet')!r}]) == 0\n"
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_option_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYR_RUN_MAX_READS", "3")
    summary = tmp_path / "summary.json"
    assert main(["run", str(EXAMPLE), "-q", "-o", str(tmp_path / "m.parquet"), "--json", str(summary)]) == 0
    assert json.loads(summary.read_text())["reads"] == 3


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file, and what its message must say."""
    whole = gzip.compress(fastq(200).encode())
    contents: dict[str, tuple[bytes, str]] = {
        "blank": (b"\n \n", "blank"),
        "cut.gz": (whole[: len(whole) - 12], "cut.gz"),
        "cut_in_sequence": (fastq(3).encode()[:60], "record 2"),
        "short_quality": (fastq(2).replace("IIII\n", "II\n", 1).encode(), "record 1"),
        "junk": (bytes(range(256)) * 40, "expected reads in FASTQ"),
    }
    files = {}
    for name, (content, message) in contents.items():
        (folder / name).write_bytes(content)
        files[name] = (folder / name, message)
    files["missing"] = (folder / "missing", "missing")
    files["folder"] = (folder, "got a folder")
    return files


@pytest.mark.parametrize("name", ["blank", "cut.gz", "cut_in_sequence", "short_quality", "junk", "missing", "folder"])
def test_bad_input_is_a_message_and_no_output(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, message = bad_inputs(tmp_path)[name]
    output = tmp_path / "masks.parquet"
    assert main(["run", str(path), "-o", str(output)]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert ": got " in err
    assert ", expected " in err
    assert "Traceback" not in err
    assert not output.exists()
    parts = output.with_name("masks.parquet.parts")
    assert parts.exists() == ("reads are finished and kept" in err)
    assert parts.exists() or name != "cut_in_sequence"


def test_good_reads_before_damage_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "reads.fastq"
    damaged.write_text(fastq(50)[:-10])
    output, summary = tmp_path / "masks.parquet", tmp_path / "run.json"
    words = ["run", str(damaged), "-o", str(output), "--json", str(summary)]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "read 'r50', record 50" in err
    assert "To go on after them, run the same command with --resume" in err
    kept = pq.read_table(tmp_path / "masks.parquet.parts" / "part-000000.parquet")
    assert kept["read_id"].to_pylist() == [f"r{i + 1}" for i in range(49)]
    assert not output.exists()
    assert not summary.exists()
    damaged.write_text(fastq(50))
    assert main([*words, "--resume"]) == 0
    assert json.loads(summary.read_text())["reads_resumed"] == 49


def test_existing_and_unwritable_outputs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "masks.parquet"
    output.write_text("precious")
    assert main(["run", str(EXAMPLE), "-o", str(output)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert main(["run", str(EXAMPLE), "-o", str(tmp_path / "no" / "such" / "m.parquet")]) == 1
    assert "mkdir -p" in capsys.readouterr().err
    assert main(["run", str(EXAMPLE), "-o", "/proc/masks.parquet"]) == 1
    assert "/proc/masks.parquet.parts: got " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-x", "cuda"], "--device: got cuda"),
        (["--dtype", "float16"], "float16"),
        (["--explain", "genus=Nonsuch"], "Nonsuch"),
        (["--window", "100000"], "--window: got 100000 bp"),
        (["--overlap", "1400"], "--overlap"),
        (["-k", "0"], "--top-k: got 0"),
        (["-m", "/nonexistent"], "bundle.json"),
        (["--nonsuch"], "--nonsuch"),
    ],
)
def test_bad_options_say_what_was_expected(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.parquet"
    assert main(["run", str(EXAMPLE), "-o", str(output), *words]) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not output.exists()


def test_interrupt_keeps_finished_rows_and_exits_130(tmp_path: Path) -> None:
    """SIGINT while reads still come in through a pipe, which stays open and says nothing more."""
    output = tmp_path / "masks.parquet"
    # A background job of a shell ignores SIGINT, and so would its children.
    heeding = ("import signal", "signal.signal(signal.SIGINT, signal.default_int_handler)")
    # The reader that waits for the pipe cannot be stopped; the run waits less long for it.
    impatient = ("from wyr_batch.job import overlap", "overlap.READER_JOIN_S = 0.3")
    words = [*command_after(*heeding, *impatient), "run", "-", "-o", str(output)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(fastq(25_000).encode())
        process.stdin.flush()
        partial = tmp_path / "masks.parquet.parts"
        deadline = time.monotonic() + 60
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read().decode()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not output.exists()


def test_masks_go_through_a_pipe(tmp_path: Path) -> None:
    output = tmp_path / "m.parquet"
    words = [*WYR_BATCH, "run", "-", "-q", "-o", str(output)]
    done = subprocess.run(words, input=gzip.compress(fastq(3).encode()), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert output.exists()


def test_info_is_a_page_and_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "m.parquet"
    assert main(["run", str(EXAMPLE), "-q", "-n", "5", "-o", str(output)]) == 0
    for words, shown in ((["info"], "model.onnx"), (["info", str(output)], "5 rows")):
        assert main([*words, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        page = capsys.readouterr().out
        assert shown in page
        assert all(name in page for name in content.get("columns", content.get("ranks")))
