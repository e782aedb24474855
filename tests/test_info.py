"""`info` on what a run leaves, finished or not, and on what is not ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import info_refusal

from wyr_batch.cli import main

EXAMPLE = Path(__file__).parents[1] / "examples" / "reads.fastq.gz"


def foreign(footer: dict[str, str]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(footer), path)

    return write


EXPECTED = "expected a bundle (bundle.json), a folder of parts (_run.json, part-000000.parquet) or a Parquet file"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign({}), "footer wyr: got nothing, expected JSON"),
        (foreign({"wyr": "three"}), "footer wyr: got Expecting value"),
        (foreign({"wyr": "[3]"}), "footer wyr: got [3], expected an object"),
        (foreign({"wyr": '{"n": NaN}'}), "footer wyr: got NaN, which is no number of JSON"),
        (lambda path: path.write_text("PAR1 but no Parquet"), EXPECTED),
        (lambda path: path.mkdir(), f"got a folder of other things, {EXPECTED}"),
        (lambda path: os.mkfifo(path), f"got a pipe, {EXPECTED}"),
        (lambda path: path.symlink_to(path), "got 'Too many levels of symbolic links'"),
        (lambda path: None, f"got nothing there, {EXPECTED}"),
    ],
)
def test_info_on_what_is_not_ours(
    make: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "x.parquet")
    assert words in info_refusal(capsys, tmp_path / "x.parquet")
    assert "File name too long" in info_refusal(capsys, tmp_path / ("x" * 300))


def test_info_on_a_folder_of_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "parts"
    assert main(["run", str(EXAMPLE), "-n", "50", "-q", "-o", f"{folder}/"]) == 0
    capsys.readouterr()

    def info() -> dict[str, Any]:
        assert main(["info", str(folder), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    whole = info()
    assert (whole["rows"], whole["parts"], whole["finished"]) == (50, 1, True)
    assert whole["columns"]["read_id"] == "string"
    assert whole["runtime"]
    # As a run leaves it that is not finished, before its first part and after some.
    part = folder / "part-000000.parquet"
    footer, table = pq.read_metadata(part).metadata, pq.read_table(part)
    (folder / "_run.json").write_bytes(footer[b"wyr_run"])
    kept = {key: footer[key] for key in (b"wyr", b"wyr_part")}
    for path in (part, folder / "part-000001.parquet"):
        pq.write_table(table.replace_schema_metadata(kept), path)
    (folder / "part-000002.parquet.partial").touch()
    assert info() == {**whole, "rows": 100, "parts": 2, "finished": False}
    for path in folder.glob("part-*"):
        path.rename(tmp_path / path.name)
    assert info() == {**whole, "rows": 0, "parts": 0, "finished": False, "columns": {}}

    foreign({"wyr": "{}"})(part)
    assert "part-000000.parquet, footer wyr_part: got nothing" in info_refusal(capsys, folder)
    part.write_bytes(b"cut")
    assert "part-000000.parquet: got " in info_refusal(capsys, folder)
    part.unlink()
    for wrong, words in (([], "got [], expected an object"), ({"footer": 1}, "footer: got 1, expected an object")):
        (folder / "_run.json").write_text(json.dumps(wrong))
        assert words in info_refusal(capsys, folder)
