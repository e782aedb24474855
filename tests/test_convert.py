"""`convert` to BED, bedGraph and TSV, read back by others; where it may write, and what it refuses."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import WYR_BATCH, finished
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_files import Row, fastq_reads, fastq_text, write_masks

from wyr_batch.cli import main
from wyr_batch.convert import lines as text_lines

RANKS = ("superkingdom", "phylum", "genus")
VALUES = st.one_of(st.sampled_from([0.0, 0.4999, 0.5, 0.9996, 1.0]), st.floats(0, 1, width=32))
ROWS = st.lists(
    st.one_of(st.none(), st.lists(VALUES, min_size=1, max_size=12)).flatmap(
        lambda mask: st.builds(
            Row,
            read_id=st.sampled_from(["r1", "SRR1.1", "a:b-c", "ä\\xff"]),
            length=st.integers(0, 20) if mask is None else st.integers(6 * len(mask) - 5, 6 * len(mask)),
            mask=st.just(mask),
            calls=st.sampled_from([("Bacteria", "Candidatus Kuenenia"), ("Viruses", None), (None, None)]),
            mate=st.sampled_from([0, 1, 2]),
        )
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of row, long reads and null calls among them."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "reads.fq").write_text(fastq_text(fastq_reads(40)))
    words = ["run", str(folder / "reads.fq"), "--window", "300", "--rank-masks", "--confidence", "0.3", "-q"]
    assert main([*words, "-t", "1", "-o", str(folder / "masks.parquet")]) == 0
    return folder / "masks.parquet"


def converted(masks: Path, to: str, *words: str, code: int = 0) -> str:
    """Return what a format holds, as text."""
    output = masks.with_name(f"converted.{to}")
    assert main(["convert", str(masks), "--to", to, "-o", str(output), "--overwrite", "-q", *words]) == code
    return output.read_text()


def tabbed(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def name_of(row: dict[str, Any]) -> str:
    return f"{row['read_id']}/{row['mate']}" if row["mate"] else row["read_id"]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_bed_lines_are_the_segments(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    masks = write_masks(tmp_path_factory.mktemp("bed") / "masks.parquet", rows)
    found = tabbed(converted(masks, "bed"))
    expected = [
        [name_of(row), str(s["start"]), str(s["end"]), row["genus"] or ".", round(1000 * s["mean"]), "."]
        for row in pq.read_table(masks).to_pylist()
        for s in row["segments"] or []
    ]
    assert [[*line[:4], int(line[4]), line[5]] for line in found] == expected
    assert all(0 <= int(line[1]) < int(line[2]) and 500 <= int(line[4]) <= 1000 for line in found)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_bedgraph_covers_each_read_with_its_mask(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    masks = write_masks(tmp_path_factory.mktemp("bedgraph") / "masks.parquet", rows)
    found = iter(tabbed(converted(masks, "bedgraph", "--sizes", str(masks.with_name("sizes")))))
    for row in pq.read_table(masks).to_pylist():
        values = row["mask"] or []
        ends = [*(row["token_start"] or [])[1:], row["length"]]
        i, before = 0, None
        while i < len(values):
            name, start, end, value = next(found)
            assert (name, int(start)) == (name_of(row), row["token_start"][i])
            assert value != before, "neighbours of one value are one line"
            n = ends[i:].index(int(end)) + 1
            np.testing.assert_allclose(values[i : i + n], float(value), atol=0.00051)
            i, before = i + n, value
        assert i == len(values)
    assert next(found, None) is None
    sizes = tabbed(masks.with_name("sizes").read_text())
    assert sizes == [[f"{r.read_id}/{r.mate}" if r.mate else r.read_id, str(r.length)] for r in rows if r.length]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_tsv_is_read_back_by_another_reader(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    masks = write_masks(tmp_path_factory.mktemp("tsv") / "masks.parquet", rows)
    names = converted(masks, "tsv").partition("\n")[0].split("\t")
    query = "SELECT * FROM read_csv(?, delim='\t', header=true, quote='', escape='', all_varchar=true)"
    lines = duckdb.execute(query, [str(masks.with_name("converted.tsv"))]).fetchall()
    table = [dict(zip(names, line, strict=True)) for line in lines]
    for found, row in zip(table, pq.read_table(masks).to_pylist(), strict=True):
        assert [found[key] for key in ("read_id", "status", "superkingdom", "genus")] == [
            row[key] for key in ("read_id", "status", "superkingdom", "genus")
        ]
        assert [int(found[key]) for key in ("mate", "length")] == [row[key] for key in ("mate", "length")]
        for key in ("mask_mean", "genus_prob"):
            number = None if found[key] is None else float(found[key])
            assert number == (None if row[key] is None else pytest.approx(row[key], abs=0.000051))
        runs = [map(int, run.split(":")) for run in (found["mask"] or "").split()]
        percent = [value for value, count in runs for _ in range(count)]
        assert percent == np.rint(np.array(row["mask"] or [], np.float32) * 100).tolist()
        spans = [tuple(map(int, span.split("-"))) for span in (found["segments"] or "").split(",") if span]
        assert spans == [(s["start"], s["end"]) for s in row["segments"] or []]


def test_formats_of_a_run_agree_with_its_columns(masks: Path) -> None:
    rows = pq.read_table(masks).to_pylist()
    assert {row["status"] for row in rows} == {"ok", "windowed", "empty"}
    phyla = [row["phylum"] or "." for row in rows for _ in row["segments"] or []]
    assert "." in phyla
    assert [line[3] for line in tabbed(converted(masks, "bed", "--rank", "phylum"))] == phyla
    header, *found = tabbed(converted(masks, "tsv"))
    assert header == [
        *("read_id", "mate", "length", "status", "mask_mean"),
        *(f"{rank}{part}" for rank in RANKS for part in ("", "_prob", "_masked", "_masked_prob")),
        *("mask", "segments"),
    ]
    assert [line[header.index("genus_masked")] for line in found] == [row["genus_masked"] or "" for row in rows]
    of_rank = tabbed(converted(masks, "bedgraph", "--rank-mask", "genus"))
    first = next(row for row in rows if row["mask_genus"])
    assert float(of_rank[0][3]) == pytest.approx(first["mask_genus"][0], abs=0.00051)


@pytest.mark.parametrize("to", ["bed", "bedgraph", "tsv", "kreport", "fasta", "fastq", "microbert-json"])
def test_pieces_of_any_size_give_one_text(to: str, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted(masks, to)
    monkeypatch.setattr("wyr_batch.masks.file.BATCH_ROWS", 7)
    monkeypatch.setattr(text_lines, "MOST_TOKENS", 60)
    assert whole
    assert converted(masks, to) == whole


def test_names_ending_in_gz_are_packed_and_standard_output_is_the_default(masks: Path, tmp_path: Path) -> None:
    packed = tmp_path / "segments.bed.gz"
    assert main(["convert", str(masks), "--to", "bed", "-o", str(packed), "-q"]) == 0
    assert packed.read_bytes()[12:14] == b"BC", "the extra field of bgzip"
    done = finished([*WYR_BATCH, "convert", str(masks), "--to", "bed"])
    assert done.stdout == gzip.decompress(packed.read_bytes()).decode() == converted(masks, "bed")
    assert done.stderr == f"40 reads -> {len(done.stdout.splitlines()):,} segments in standard output\n"


def test_outputs_replace_nothing_and_are_whole_or_not_there(
    masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        capsys.readouterr()
        assert main(["convert", str(masks), "-q", *words]) in (1, 2)
        said: str = capsys.readouterr().err
        assert ": got " in said
        return said

    there = tmp_path / "there"
    there.write_text("mine")
    assert "a file that exists" in refused("--to", "bed", "-o", str(there))
    assert "--sizes" in refused("--to", "bed", "-o", str(tmp_path / "new"), "--sizes", str(there))
    assert "the path of -o as well" in refused("--to", "bed", "-o", str(there), "--sizes", str(there), "--overwrite")
    assert "MASKS" in refused("--to", "bed", "-o", str(masks), "--overwrite")
    assert "the input" in refused("--to", "bed", "-o", str(masks.with_name("reads.fq")), "--overwrite")
    assert "--rank: got --to tsv, expected --to bed:" in refused("--to", "tsv", "--rank", "genus")
    assert "one of superkingdom, phylum, genus" in refused("--to", "bed", "--rank", "class")
    assert "one of superkingdom, phylum, genus" in refused("--to", "bedgraph", "--rank-mask", "class")
    assert there.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    said = refused("--to", "tsv", "-o", "/dev/full")
    assert "/dev/full: got 'No space left on device' while writing" in said


def test_masks_of_a_rank_that_were_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_masks(tmp_path / "masks.parquet", [Row("r", 6, [1.0])])
    assert main(["convert", str(masks), "--to", "bedgraph", "--rank-mask", "genus"]) == 1
    assert "no column 'mask_genus', expected the masks of each rank. Run again with --rank-masks" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("row", "to", "words"),
    [
        (Row("a b", 6, [1.0]), "bed", "column read_id, row 2: got 'a b', expected a name without white space"),
        (Row("a\tb", 6, [1.0]), "tsv", r"column read_id, row 2: got 'a\tb', expected text without tabs"),
        (Row("a", 6, [1.0], ("x\ny", None)), "kreport", r"column superkingdom, row 2: got 'x\ny', expected text"),
    ],
)
def test_text_of_another_tool_that_would_break_a_line(
    row: Row, to: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write_masks(tmp_path / "masks.parquet", [Row("good", 6, [1.0]), row])
    assert main(["convert", str(masks), "--to", to, "-o", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.parquet"]
