"""No output replaces what it should not, and nothing is deleted that this tool did not write."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from commands import WYR_BATCH, finished
from toy_engine import RANKS, run_toy, toy_bundle

from wyr_batch import api
from wyr_batch.bundle import starter_path
from wyr_batch.cli import main
from wyr_batch.errors import InputError, OutputError
from wyr_batch.job.config import RunConfig
from wyr_batch.ranks import FIXED_COLUMNS, rank_columns
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.folder import parts_folder

FASTQ = "".join(f"@r{i}\nACGTACGTACGTTTGACCAGAC\n+\n{'I' * 22}\n" for i in range(40))


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.fq"
    path.write_text(FASTQ)
    return path


@pytest.mark.parametrize(
    "words",
    [
        "-o r.fq --overwrite",
        "-o ./r.fq --overwrite",
        "-o hard.fq --overwrite",
        "-o link.fq --overwrite",
        "-o m.parquet --json r.fq --overwrite",
        "-o m.parquet --log link.fq",
        "-o m.parquet --log list.txt -X list.txt",
        "-o m.parquet --json m.parquet",
        "-o m.parquet --json same/m.parquet",
        "-o m.parquet --json x --log x",
        "-o m.parquet --log m.parquet.parts/log",
        "-o parts/ --json parts/summary.json",
        "-o bundle/model.onnx -m bundle --overwrite",
        "-o bundle/ -m bundle --overwrite",
        "-o m.parquet -m bundle --json bundle/parity.json --overwrite",
        "-o device --overwrite",
        "-o pipe --overwrite",
        "-o pipe --resume",
        "-o to_device --overwrite",
        "-o m.parquet --json precious.json",
        "-o foreign_parts/ --overwrite",
        "-o m2.parquet --overwrite",
        "-o -",
        "-o nowhere/m.parquet",
        "-o m.parquet --json nowhere/x.json",
        "-o m.parquet --log nowhere/x.log",
    ],
)
def test_an_output_that_would_harm_something_is_refused_before_any_work(words: str, reads: Path) -> None:
    folder = reads.parent
    os.link(reads, folder / "hard.fq")
    (folder / "link.fq").symlink_to(reads)
    (folder / "same").symlink_to(folder)
    (folder / "list.txt").write_text("r.fq\n")
    (folder / "precious.json").write_text('{"results": 1}')
    shutil.copytree(starter_path(), folder / "bundle")
    os.mkfifo(folder / "pipe")
    os.symlink("/dev/null", folder / "to_device")
    if os.geteuid() == 0:
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        os.symlink("/dev/zero", folder / "device")
    (folder / "foreign_parts").mkdir()
    duckdb.sql("select 1 as x").write_parquet(str(folder / "foreign_parts" / "part-000000.parquet"))
    (folder / "m2.parquet.parts").mkdir()
    (folder / "m2.parquet.parts" / "my_notes.txt").write_text("precious")
    before = contents(folder)
    assert main(["run", "r.fq", "-q", *words.split()]) in (1, 2)
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, object]:
    """Return every path under a folder with its kind, and bytes where it is a file."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        found[str(path)] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def test_the_file_that_standard_input_comes_from_is_not_replaced(reads: Path) -> None:
    with reads.open() as file:
        done = finished([*WYR_BATCH, "run", "-", "-o", "r.fq", "--overwrite"], stdin=file)
    assert done.returncode == 2
    assert "the file that standard input comes from" in done.stderr
    assert reads.read_text() == FASTQ


@pytest.mark.usefixtures("small_chunks")
def test_overwrite_keeps_links_and_what_others_put_beside_the_parts(reads: Path) -> None:
    target, link = reads.parent / "real.parquet", reads.parent / "m.parquet"
    target.write_text("old")
    link.symlink_to(target)
    run_toy(RunConfig((str(reads),), link, overwrite=True))
    assert link.is_symlink()
    assert pq.read_metadata(target).num_rows == 40
    assert sorted(path.name for path in reads.parent.iterdir()) == ["m.parquet", "r.fq", "real.parquet"]


@pytest.mark.usefixtures("small_chunks")
def test_a_folder_of_other_tools_parts_is_left_alone_and_our_own_replaced(reads: Path) -> None:
    folder = reads.parent / "parts"
    run_toy(RunConfig((str(reads),), folder, dataset=True, part_s=0))
    ours = sorted(path.name for path in folder.iterdir())
    spark = folder / "part-00000-3f1c.snappy.parquet"
    duckdb.sql("select 1 as x").write_parquet(str(spark))
    with pytest.raises(OutputError, match=r"holds part-00000-3f1c\.snappy\.parquet, which this tool did not write"):
        run_toy(RunConfig((str(reads),), folder, overwrite=True))
    assert sorted(path.name for path in folder.iterdir()) == sorted([*ours, spark.name])
    spark.unlink()
    run_toy(RunConfig((str(reads),), folder, overwrite=True))
    assert [path.name for path in folder.iterdir()] == ["part-000000.parquet"]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("part_s", [0, 30])
def test_every_reader_of_folders_reads_a_finished_one(reads: Path, part_s: float) -> None:
    """polars and DuckDB take every file of a folder for Parquet, whatever its name begins with."""
    folder = reads.parent / "parts"
    run_toy(RunConfig((str(reads),), folder, dataset=True, part_s=part_s))
    assert {path.suffix for path in folder.iterdir()} == {".parquet"}
    assert ds.dataset(folder).count_rows() == 40
    assert len(pd.read_parquet(folder)) == 40
    assert duckdb.sql(f"select count(*) from read_parquet('{folder}/*')").fetchall() == [(40,)]


@pytest.mark.usefixtures("small_chunks")
def test_a_damaged_part_is_not_joined(reads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = reads.parent / "m.parquet"
    reads.write_text(FASTQ + "@cut\nACGT\n")
    config = RunConfig((str(reads),), output, part_s=0)
    with pytest.raises(InputError):
        run_toy(config)
    part = parts_folder(output) / "part-000000.parquet"
    content = bytearray(part.read_bytes())
    content[20] ^= 1
    part.write_bytes(content)
    reads.write_text(FASTQ + "@cut\nACGT\n+\nIIII\n")
    with pytest.raises(OutputError, match=r"part-000000\.parquet: got other bytes than were written"):
        run_toy(RunConfig((str(reads),), output, resume=True))
    part.unlink()
    run_toy(RunConfig((str(reads),), output, resume=True))
    assert pq.read_metadata(output).num_rows == 41


@pytest.mark.usefixtures("small_chunks")
def test_a_copied_input_is_resumed_and_an_input_given_twice_keeps_its_name(reads: Path) -> None:
    output, other = reads.parent / "m.parquet", reads.parent / "other.fq"
    other.write_text(FASTQ[: len(FASTQ) // 2] + "@cut\n")
    config = RunConfig((str(other), str(reads), str(other)), output)
    with pytest.raises(InputError):
        run_toy(config)
    for path in (other, reads):
        os.utime(path, (1, 1))
    other.write_text(FASTQ)
    run_toy(RunConfig(config.inputs, output, resume=True))
    assert pq.read_table(output)["file"].to_pylist() == [name for name in config.inputs for _ in range(40)]


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"]
)
def test_a_sample_of_no_reads_is_a_table_of_no_rows(
    reads: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, output = reads.parent / "empty.fq", reads.parent / "m.parquet"
    empty.write_bytes(content)
    assert main(["run", str(empty), "-o", str(output), "--json", "s.json"]) == 0
    assert "empty.fq: 0 bytes, so no reads." in capsys.readouterr().err
    assert pq.read_table(output).num_rows == json.loads(Path("s.json").read_text())["reads"] == 0
    folder = reads.parent / "parts"
    assert main(["run", str(empty), "-q", "-o", f"{folder}/"]) == 0
    assert ds.dataset(folder).count_rows() == 0


def test_names_that_are_not_utf8_go_everywhere(reads: Path) -> None:
    name = os.fsdecode(b"r\xff.fq")
    os.rename(reads, reads.parent / name)
    (reads.parent / "other.fq").write_text(FASTQ)
    (reads.parent / "list.txt").write_bytes(b"\xef\xbb\xbfr\xff.fq\r\nother.fq\r\n")
    for output in (b"m\xff.parquet", b"d\xff/"):
        words = ["run", "-X", "list.txt", "-q", "-o", os.fsdecode(output), "--json", os.fsdecode(b"s\xff.json")]
        assert main([*words, "--part-seconds", "0"]) == 0
        assert main([*words, "--resume"]) == 0
        assert main(["info", os.fsdecode(output)]) == 0
    with open(os.fsdecode(b"m\xff.parquet"), "rb") as file:
        table = pq.read_table(file)
    assert set(table["file"].to_pylist()) == {"r\\xff.fq", "other.fq"}
    footer = json.loads(table.schema.metadata[b"wyr"])
    assert footer["inputs"] == ["r\\xff.fq", "other.fq"]


def test_paired_files_that_are_one_file_are_refused(reads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.link(reads, "again.fq")
    assert main(["run", "--paired", "r.fq", "again.fq", "-q", "-o", "m.parquet"]) == 2
    assert "as first and as second mates" in capsys.readouterr().err


def test_reserved_names_are_those_of_the_rows() -> None:
    schema = RowBuilder(RANKS, rank_masks=True, top_k=2, files=("a", "b"), token_ends=True).schema
    assert {*FIXED_COLUMNS, *(c for rank in RANKS for c in rank_columns(rank.name))} - {"sequence"} == set(schema.names)
    assert toy_bundle().ranks == RANKS


@pytest.mark.parametrize("name", ["half a character \ud800", "x" * 300, "a\0b"])
def test_names_that_no_file_has_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        api.run(RunConfig((name,), tmp_path / "m.parquet"))
