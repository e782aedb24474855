"""Reports in the style of Kraken: `convert --to kreport` and `run --report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_files import Row, write_masks

from wyr_batch.cli import main
from wyr_batch.ranks import coarse_to_fine, rank_codes
from wyr_batch.rows.kreport import FIRST_TAXID, clade_taxids, is_kreport, kreport

EXAMPLE = Path(__file__).parents[1] / "examples" / "reads.fastq.gz"
CLADES = st.lists(st.sampled_from(["a", "b", "Candidatus Kuenenia"]), max_size=3).map(tuple)


def parsed(text: str) -> list[tuple[int, int, str, int, int, str]]:
    """Return reads in the clade, reads at it, code, taxid, depth and name of each line, after looking at its form."""
    found = []
    n_reads = sum(int(line.split("\t")[2]) for line in text.splitlines())
    for line in text.splitlines():
        percent, in_clade, direct, code, taxid, name = line.split("\t")
        assert percent == f"{100 * int(in_clade) / max(n_reads, 1):6.2f}"
        spaces = len(name) - len(name.lstrip(" "))
        assert spaces % 2 == 0
        found.append((int(in_clade), int(direct), code, int(taxid), spaces // 2, name.lstrip(" ")))
    return found


@given(st.lists(CLADES))
def test_a_clade_holds_its_own_reads_and_those_of_the_clades_below(clades: list[tuple[str, ...]]) -> None:
    counts = Counter(clades)
    (unclassified, root, *rest) = parsed(kreport(["superkingdom", "phylum", "genus"], counts))
    assert unclassified == (counts[()], counts[()], "U", 0, 0, "unclassified")
    assert root == (len(clades) - counts[()], 0, "R", 1, 0, "root")
    way: list[str] = []
    below: Counter[tuple[str, ...]] = Counter()
    reads: dict[tuple[str, ...], int] = {(): root[0]}
    for in_clade, direct, code, taxid, depth, name in rest:
        way[depth - 1 :] = [name.partition(" [")[0]]
        assert len(way) == depth
        assert code == "DPG"[depth - 1]
        assert direct == counts[tuple(way)]
        assert FIRST_TAXID <= taxid < 2**31
        reads[tuple(way)] = in_clade
        below[tuple(way[:-1])] += in_clade
    for clade, n in reads.items():
        assert n == below[clade] + (counts[clade] if clade else 0)
    assert len({line[3] for line in rest}) == len(rest)
    assert len({(line[2], line[5]) for line in rest}) == len(rest), "MultiQC goes by rank and name"


def test_a_clade_has_one_number_in_every_report() -> None:
    ranks = ["superkingdom", "genus"]
    one, other = clade_taxids(ranks, [("a",), ("a", "x")]), clade_taxids(ranks, [("a", "x"), ("b",), ("b", "x")])
    assert one[("a", "x")] == other[("a", "x")]
    assert len({*one.values(), *other.values()}) == 4


def test_codes_of_ranks_are_those_of_kraken() -> None:
    ranks = ["domain", "kingdom", "phylum", "class", "order", "family", "genus", "species"]
    assert coarse_to_fine(ranks[::-1]) == ranks
    assert rank_codes([*ranks, "strain"]) == [*"DKPCOFGS", "S1"]
    assert rank_codes(["realm", "Superkingdom", "clade", "subclade", "genus"]) == ["R1", "D", "D1", "D2", "G"]
    assert rank_codes(["domain", "superkingdom"]) == ["D", "D1"], "one letter is one rank"


def test_a_read_stands_at_its_last_call_before_the_first_null_one(tmp_path: Path) -> None:
    rows = [
        *[Row("r", 6, [1.0], ("Bacteria", "Vibrio"))] * 3,
        *[Row("r", 6, [0.0], ("Bacteria", None))] * 2,
        Row("r", 6, [1.0], ("Viruses", "Vibrio")),
        Row("r", 6, [1.0], (None, "Vibrio")),
        Row("r", 0, None),
    ]
    masks, report = write_masks(tmp_path / "masks.parquet", rows), tmp_path / "report.txt"
    assert main(["convert", str(masks), "--to", "kreport", "-o", str(report), "-q"]) == 0
    assert [(*line[:3], *line[4:]) for line in parsed(report.read_text())] == [
        (2, 2, "U", 0, "unclassified"),
        (6, 0, "R", 0, "root"),
        (5, 2, "D", 1, "Bacteria"),
        (3, 3, "G", 2, "Vibrio"),
        (1, 0, "D", 1, "Viruses"),
        (1, 1, "G", 2, "Vibrio [Viruses]"),
    ]


@pytest.mark.parametrize("output", ["masks.parquet", "parts/"])
def test_run_reports_what_its_rows_say(
    output: str, tmp_path: Path, small_chunks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, report = tmp_path / output, tmp_path / "report.txt"
    words = ["run", str(EXAMPLE), "-n", "60", "--confidence", "0.5", "-q", "-t", "1", "-o", f"{tmp_path}/{output}"]
    assert main([*words, "--report", str(report)]) == 0
    text = report.read_text()
    files = f"{masks}/*.parquet" if masks.is_dir() else str(masks)
    query = "SELECT superkingdom, count(*) FROM read_parquet(?) GROUP BY superkingdom"
    expected = dict(duckdb.execute(query, [files]).fetchall())
    lines = parsed(text)
    assert lines[0][0] == expected.pop(None)
    assert {line[5]: line[0] for line in lines if line[2] == "D"} == expected
    capsys.readouterr()
    assert main(["convert", str(masks), "--to", "kreport", "-q"]) == 0
    assert capsys.readouterr().out == text
    # The same command again, on the finished run, writes the same report.
    report.unlink()
    assert main([*words, "--report", str(report), "--resume"]) == 0
    assert report.read_text() == text
    assert main([*words, "--report", str(report), "--resume"]) == 0


KRAKEN = " 50.00\t1\t1\tU\t0\tunclassified\n 50.00\t1\t0\tR\t1\troot\n 50.00\t1\t1\tD\t2\t  Bacteria\n"


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.write_text("mine\n"), "a file that exists and is no report of this tool"),
        (lambda path: path.write_text(KRAKEN), "a file that exists and is no report of this tool"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: path.symlink_to(EXAMPLE), "an output never replaces what is read"),
    ],
)
def test_report_is_checked_before_the_run(
    prepare: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.txt"
    prepare(report)
    before = report.read_bytes() if report.is_file() else b""
    run = ["run", str(EXAMPLE), "-n", "5", "-q", "-o", str(tmp_path / "masks.parquet"), "--report", str(report)]
    assert main(run) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith(f"wyr-batch: --report {report}: got ")
    assert words in said
    assert not (tmp_path / "masks.parquet").exists()
    assert (report.read_bytes() if report.is_file() else b"") == before


def test_reports_are_told_from_those_of_kraken(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text(kreport(["genus"], {(f"label {i}",): 1 for i in range(2000)}))
    assert path.stat().st_size > 1 << 16
    assert is_kreport(path)
    path.write_text(KRAKEN)
    assert not is_kreport(path)
    path.write_text("")
    assert is_kreport(path)
