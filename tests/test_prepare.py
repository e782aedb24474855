"""Labelled sequences from every kind of source, with lineages from a small taxonomy dump."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyr_batch.train.data.markers import prepare_markers
from wyr_batch.train.data.prepare import SplitRule, stratified_splits

from wyr_batch.cli import main
from wyr_batch.errors import InputError

# taxid: parent, rank, name. The tree of 2025: domains, and an acellular root above the viruses.
NODES = {
    1: (1, "no rank", "root"),
    10: (1, "domain", "Bacteria"),
    11: (10, "phylum", "Pseudomonadota"),
    12: (11, "genus", "Escherichia"),
    13: (12, "species", "Escherichia coli"),
    14: (11, "species", "Pseudomonadota bacterium"),
    20: (1, "acellular root", "Viruses"),
    21: (20, "phylum", "Negarnaviricota"),
    22: (21, "genus", "Nyavirus"),
}
MERGED = {99: 13}
UNKNOWN = 77


@pytest.fixture(params=["directory", "tar.gz", "zip"])
def taxdump(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "taxdump"
    folder.mkdir()
    (folder / "nodes.dmp").write_text("".join(f"{t}\t|\t{p}\t|\t{r}\t|\t\t|\n" for t, (p, r, _) in NODES.items()))
    (folder / "names.dmp").write_text(
        "".join(f"{t}\t|\t{name}\t|\t\t|\tscientific name\t|\n" for t, (_, _, name) in NODES.items())
    )
    (folder / "merged.dmp").write_text("".join(f"{old}\t|\t{new}\t|\n" for old, new in MERGED.items()))
    if request.param == "directory":
        return folder
    packed = tmp_path / f"taxdump.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
    else:
        with tarfile.open(packed, "w:gz") as tar:
            tar.add(folder, ".")
    return packed


def prepared(words: Sequence[object], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict, pa.Table]:
    output = folder / "out.parquet"
    assert main(["train", "prepare", *map(str, words), "-o", str(output)]) == 0
    return json.loads(capsys.readouterr().out), pq.read_table(output)


def write_bertax(folder: Path) -> Path:
    """A tree as BERTax publishes it: one list a superkingdom, the taxids beside it."""
    for name, taxids in {"Bacteria": [13, 99, 14, UNKNOWN], "Viruses": [22]}.items():
        (folder / name).mkdir(parents=True)
        fragments = ["ACGT" * (10 + i) for i in range(len(taxids))]
        (folder / name / f"{name}_fragments.json").write_text(json.dumps(fragments))
        (folder / name / f"{name}_species_picked.txt").write_text("\n".join(map(str, taxids)) + "\n")
    return folder


def test_bertax_tree_with_merged_unknown_and_incomplete_taxids(
    taxdump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = write_bertax(tmp_path / "bertax")
    counts, table = prepared([tree, "--taxdump", taxdump], tmp_path, capsys)
    assert counts["kept"] == 3
    assert counts["dropped"] == {"no genus": 1, "taxid not in the dump": 1}
    assert counts["sequences_with_merged_taxids"] == 1
    assert counts["by_coarsest_rank"] == {"Bacteria": 2, "Viruses": 1}
    rows = table.drop_columns("split").to_pylist()
    escherichia = {"superkingdom": "Bacteria", "phylum": "Pseudomonadota", "genus": "Escherichia"}
    assert rows[0] == {"header": "13 0", "sequence": "ACGT" * 10, **escherichia}
    assert rows[1] == {"header": "99 1", "sequence": "ACGT" * 11, **escherichia}, "the taxid that replaced it"
    assert rows[2]["superkingdom"] == "Viruses"
    made = json.loads(table.schema.metadata[b"wyr"])
    assert made["taxdump"]["name"] == taxdump.name
    assert made["taxdump"]["date"] >= "2026"

    kept, table = prepared([tree, "--taxdump", taxdump, "--incomplete", "null"], tmp_path, capsys)
    assert (kept["kept"], kept["null_labels"]) == (4, {"genus": 1})
    assert table["genus"].to_pylist() == ["Escherichia", "Escherichia", None, "Nyavirus"]


@pytest.mark.parametrize("taxdump", ["directory"], indirect=True)
def test_fasta_by_table_or_by_header(taxdump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_header = tmp_path / "a.fasta"
    by_header.write_text(">13 0\nACGT\n>22 1\nGGGG\n")
    _, table = prepared([by_header, "--taxdump", taxdump], tmp_path, capsys)
    assert table["header"].to_pylist() == ["13 0", "22 1"]
    by_table, ids = tmp_path / "b.fasta", tmp_path / "ids.tsv"
    by_table.write_text(">NC_1.1 whole genome\nACGT\n>NC_2.1\nGGGG\n>NC_3.1\nTTTT\n")
    ids.write_text("accession\taccession.version\ttaxid\tgi\nNC_1\tNC_1.1\t13\t0\nNC_2\tNC_2.1\t22\t0\n")
    counts, table = prepared([by_table, "--taxdump", taxdump, "--taxids", ids], tmp_path, capsys)
    assert counts["dropped"] == {"no taxid": 1}
    assert table["genus"].to_pylist() == ["Escherichia", "Nyavirus"]
    assert main(["train", "prepare", str(by_table), "--taxdump", str(taxdump), "-o", str(tmp_path / "x")]) == 1
    assert "record 1: got 'NC_1.1', expected `>TAXID INDEX`" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_table_of_labels_with_its_own_splits(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"seq": ["ACGT", "GG", "TT"], "kind": ["a", "b", None], "part": ["train", "test", "train"]})
    source = tmp_path / f"reads.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, source)
    else:
        pacsv.write_csv(table, source, pacsv.WriteOptions(delimiter="," if suffix == "csv" else "\t"))
    words = [source, "--ranks", "kind", "--sequence-column", "seq", "--split", "part"]
    counts, written = prepared(words, tmp_path, capsys)
    assert counts["dropped"] == {"no kind": 1}
    assert written["split"].to_pylist() == ["train", "test"]
    assert written["kind"].to_pylist() == ["a", "b"]


def test_csv_is_text_and_what_is_no_sequence_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ("sequence,kind", "ACGT,007", " AC GT ,7", ",7", "AC7T,7", "ÀCGT,7", "ACGT,NA", "NNN-*.acgt,7")
    source = tmp_path / "reads.csv"
    source.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    counts, table = prepared([source, "--ranks", "kind"], tmp_path, capsys)
    assert counts["dropped"] == {"characters of no sequence": 2, "no bases": 1, "no kind": 1}
    assert table["kind"].to_pylist() == ["007", "7", "7"]
    assert table["sequence"].to_pylist() == ["ACGT", "ACGT", "NNN-*.acgt"]
    rows = pa.table({"sequence": ["ACGT", None], "kind": [7, 8], "header": ["r1", None]})
    pq.write_table(rows, tmp_path / "reads.parquet")
    counts, table = prepared([tmp_path / "reads.parquet", "--ranks", "kind"], tmp_path, capsys)
    assert counts["dropped"] == {"no bases": 1}
    assert table["kind"].to_pylist() == ["7"]


def test_only_a_training_parquet_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "reads.csv", tmp_path / "out.parquet"
    source.write_text("sequence,kind\nACGT,a\n")
    for name in ("out.parquet.unsplit", "out.parquet.partial"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "link").symlink_to(output)
    words = ["train", "prepare", str(source), "--ranks", "kind", "-o"]
    assert main([*words, str(output)]) == 0
    source.write_text("sequence,kind\nACGT,b\n")
    assert main([*words, str(tmp_path / "link")]) == 0
    assert (pq.read_table(output)["kind"].to_pylist(), (tmp_path / "link").is_symlink()) == (["b"], True)
    pq.write_table(pq.read_table(output).replace_schema_metadata({}), output)
    before = output.read_bytes()
    assert main([*words, str(output)]) == 1
    assert "out.parquet: got a file that train prepare did not write" in capsys.readouterr().err
    assert output.read_bytes() == before
    (tmp_path / "bad.csv").write_text("sequence,kind\nACGT\n")
    assert main(["train", "prepare", str(tmp_path / "bad.csv"), "--ranks", "kind", "-o", str(tmp_path / "x")]) == 1
    left = ["bad.csv", "link", "out.parquet", "out.parquet.partial", "out.parquet.unsplit", "reads.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    for name in ("out.parquet.unsplit", "out.parquet.partial"):
        assert (tmp_path / name).read_text() == "precious"


def test_fetched_markers_replace_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, folder = tmp_path / "tools", tmp_path / "out"
    tools.mkdir()
    folder.mkdir()
    (folder / "markers.fasta").write_text("precious")
    commands = {
        "apt-get": "touch metaphlan2.deb",
        "dpkg-deb": 'd=$3/var/lib/metaphlan2-data; mkdir -p "$d"; printf ">NC_1.1:1-4\\nACGT\\n" > "$d/markers.fasta"',
    }
    for name, command in commands.items():
        (tools / name).write_text(f"#!/bin/sh\n{command}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    counts = prepare_markers(None, folder / "markers.parquet", lambda accession: ("Bacteria", "P", "G"))
    assert counts.kept == 1
    assert sorted(path.name for path in folder.iterdir()) == ["markers.fasta", "markers.parquet"]
    assert (folder / "markers.fasta").read_text() == "precious"
    (tools / "dpkg-deb").write_text("#!/bin/sh\necho no space >&2\nexit 2\n")
    with pytest.raises(InputError, match="got 'no space' from dpkg-deb -x"):
        prepare_markers(None, folder / "markers.parquet", lambda accession: None)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("taxdump", ["directory"], indirect=True)
@pytest.mark.parametrize(
    ("fragments", "picked", "words"),
    [
        (["ACGT"], "22\n22\n", "got 1 sequences, expected 2"),
        (["ACGT", "GG"], "22\n", "got more than 0 sequences, expected 1"),
        (["ACGT"], "twenty\n", "expected one taxid a line"),
        ([7], "22\n", "got an entry that is no text"),
        (None, "22\n", "expected a JSON list"),
    ],
)
def test_lists_that_do_not_belong_together(
    fragments: list[object] | None,
    picked: str,
    words: str,
    taxdump: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = write_bertax(tmp_path / "bertax")
    (tree / "Viruses" / "Viruses_fragments.json").write_text("[" if fragments is None else json.dumps(fragments))
    (tree / "Viruses" / "Viruses_species_picked.txt").write_text(picked)
    assert main(["train", "prepare", str(tree), "--taxdump", str(taxdump), "-o", str(tmp_path / "x")]) == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Viruses_" in message
    assert not list(tmp_path.glob("x*")), "nothing is left of an output that could not be made"


def test_taxonomy_missing_or_not_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_bertax(tmp_path / "bertax")
    assert main(["train", "prepare", str(tree), "-o", str(tmp_path / "x")]) == 2
    assert "expected --taxdump" in capsys.readouterr().err
    empty = tmp_path / "none"
    empty.mkdir()
    assert main(["train", "prepare", str(tree), "--taxdump", str(empty), "-o", str(tmp_path / "x")]) == 1
    assert "got no nodes.dmp" in capsys.readouterr().err
    table = tmp_path / "t.csv"
    table.write_text("sequence,taxid\nACGT,x1\n")
    words = ["train", "prepare", str(table), "--taxid-column", "taxid", "--taxdump", str(empty)]
    (empty / "nodes.dmp").write_text("1\t|\t1\t|\tno rank\t|\n")
    (empty / "names.dmp").write_text("1\t|\troot\t|\t\t|\tscientific name\t|\n")
    (empty / "merged.dmp").write_text("")
    assert main([*words, "-o", str(tmp_path / "x")]) == 1
    assert "got taxid 'x1', expected a whole number" in capsys.readouterr().err


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=400), st.integers(0, 99))
def test_stratified_splits_give_every_class_its_share(classes: list[int], seed: int) -> None:
    finest = np.array(classes)
    held = stratified_splits(finest, SplitRule(test_share=0.1, validation_share=0.2, seed=seed))
    assert abs((held == 2).sum() - 0.1 * len(finest)) <= 1
    for name in set(classes):
        own = held[finest == name]
        assert abs((own == 2).sum() - 0.1 * len(own)) < 1.001
        assert abs((own == 1).sum() - 0.2 * len(own)) < 2.001


def test_a_seed_gives_the_parts_it_always_gave() -> None:
    held = stratified_splits(np.arange(60) % 7 % 3 - 1, SplitRule(test_share=0.1, validation_share=0.2, seed=3))
    assert "".join(map(str, held)) == "001000010002000000010200110111000100002020001000011002020000"
