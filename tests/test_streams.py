"""What a command finds around it: closed and full streams, full logs, names in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
from click.core import ParameterSource
from commands import command_after, finished

from wyr_batch.cli import COMMANDS, cli, main

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "reads.fastq.gz"
RUN = ["run", "--runtime", "onnx"]  # which starts soonest
ENTRY = [sys.executable, "-c", "from wyr_batch.cli import entry; entry()"]


def run_with(setting: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that redirects its streams."""
    line = f'exec "$@" {setting}'
    return finished(["bash", "-c", line, "bash", *ENTRY, *words])


@pytest.mark.parametrize("setting", ["2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>&1"])
def test_closed_and_full_streams_do_not_hurt_a_run(setting: str, tmp_path: Path) -> None:
    output = tmp_path / "m.parquet"
    done = run_with(setting, *RUN, str(EXAMPLE), "-n", "5", "-o", str(output))
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, "", False)
    assert output.read_bytes()[:4] == b"PAR1"


def test_a_closed_standard_input_is_no_empty_one(tmp_path: Path) -> None:
    done = run_with("<&-", *RUN, "-", "-q", "-o", str(tmp_path / "m.parquet"))
    assert done.returncode == 1
    assert "<stdin>: got a closed standard input" in done.stderr


@pytest.mark.parametrize(("setting", "reason"), [(">/dev/full", "No space left"), (">&-", "Bad file descriptor")])
def test_a_result_that_standard_output_does_not_take_is_an_error(setting: str, reason: str) -> None:
    done = run_with(setting, "info")
    assert done.returncode == 1
    assert f"standard output: got '{reason}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("entry", [ENTRY, [sys.executable, "-c", "from wyr_batch.cli import main; main()"]])
def test_streams_that_do_not_block_are_waited_for(entry: list[str], tmp_path: Path) -> None:
    """Reads that come late, through a pipe whose reading end does not block."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    output = tmp_path / "m.parquet"
    with subprocess.Popen([*entry, *RUN, "-", "-q", "-o", str(output)], stdin=read_end) as process:
        os.close(read_end)
        deadline = time.monotonic() + 60
        while not (tmp_path / "m.parquet.parts").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.write(write_end, b"@r\nACGT\n+\nIIII\n")
        os.close(write_end)
    assert process.returncode == 0
    assert pq.read_metadata(output).num_rows == 1


def test_a_full_disk_behind_the_log_is_said_once_and_the_run_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "m.parquet"
    done = run_with("", *RUN, str(EXAMPLE), "-n", "5", "-o", str(output), "--log", "/dev/full")
    assert done.returncode == 1
    assert "--log /dev/full: got 'No space left on device' while writing" in done.stderr
    assert "Traceback" not in done.stderr
    assert output.exists()


def test_messages_come_once_whatever_others_do_with_the_root_logger(tmp_path: Path) -> None:
    words = [*RUN, str(EXAMPLE), "-n", "5", "-o", str(tmp_path / "m.parquet")]
    done = finished([*command_after("import logging", "logging.basicConfig()"), *words])
    assert done.returncode == 0
    assert done.stderr.count("No --model given") == 1
    home = {**os.environ, "HOME": "/nonexistent"}
    quiet = finished([*ENTRY, *words, "-q", "--overwrite"], env=home)
    assert (quiet.returncode, quiet.stderr) == (0, "")


def every_option() -> list[tuple[str, click.Command, click.Option]]:
    found = []

    def walk(prefix: str, command: click.Command) -> None:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(f"{prefix}_{name.upper()}", inner)
            return
        found.extend((prefix, command, param) for param in command.params if isinstance(param, click.Option))

    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        walk(f"WYR_{name.upper()}", command)
    return found


@pytest.mark.parametrize(
    ("prefix", "command", "option"), every_option(), ids=lambda value: getattr(value, "name", value) or "?"
)
def test_every_option_has_the_environment_name_of_its_flag(
    prefix: str, command: click.Command, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = next(name for name in option.opts if name.startswith("--"))
    if option.is_flag:
        value = "1"
    elif isinstance(option.type, click.Choice):
        value = str(option.type.choices[0])
    else:
        value = "1"
    monkeypatch.setenv(f"{prefix}_{flag[2:].replace('-', '_').upper()}", value)
    with command.make_context(command.name, [], resilient_parsing=True) as context:
        assert context.get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT


def test_debug_from_the_environment_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYR_INFO_DEBUG", "1")
    with pytest.raises(Exception, match="nonexistent"):
        main(["info", "/nonexistent"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--explain", "genus=Thermus", "--explain", "genus=Thermus"], "the rank 'genus' more than once"),
        (["--explain", "predicted", "--explain", "genus=Thermus"], "expected predicted alone"),
        (["--window", "0"], "--window: got 0, expected 6 or more"),
        (["--window", "-6"], "--window: got -6"),
        (["--part-seconds", "nan"], "--part-seconds: got nan"),
        (["--confidence", "nan"], "--confidence: got nan"),
        (["-q", "-v"], "-q: got -v as well"),
        (["-m", ""], "-m: got an empty name"),
        (["--json", ""], "--json: got an empty name"),
    ],
)
def test_options_that_contradict_or_repeat(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(EXAMPLE), "-o", str(tmp_path / "m.parquet"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["run", "{long}", "-o", "m.parquet"],
        ["run", str(EXAMPLE), "-o", "{long}"],
        ["run", str(EXAMPLE), "-m", "{long}", "-o", "m.parquet"],
        ["run", str(EXAMPLE), "-X", "{long}", "-o", "m.parquet"],
        ["run", str(EXAMPLE), "-o", "m.parquet", "--json", "{long}"],
        ["run", str(EXAMPLE), "-o", "m.parquet", "--log", "{long}"],
        ["info", "{long}"],
        ["info", "loop/x"],
        ["run", "loop", "-o", "m.parquet"],
        ["run", str(EXAMPLE), "-o", "loop/m.parquet"],
    ],
)
def test_paths_that_may_not_be_looked_at(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names too long and links in a circle: what an unreadable folder is to a user who is not root."""
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    assert main([word.format(long="x" * 300) for word in words]) in (1, 2)
    err = capsys.readouterr().err
    assert "unexpected" not in err
    assert "File name too long" in err or "symbolic links" in err or "got no folder" in err
