"""Labelled tables of texts and proteins: every format, every shape of labels, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyr_batch.train.data.labelled import choose_ranks, input_of, load_reads, read_table
from wyr_batch.train.data.lineages import Labels
from wyr_batch.train.data.request import SplitRule
from wyr_batch.train.data.splits import stratified_by_labels, stratified_splits

from wyr_batch.cli import main
from wyr_batch.ranks import Rank

TEXTS = ["A fine film, né?", "Dull; 退屈 — and\nlong", '"Good", she said', "A fine film, né?"]
LABELS = ["good", "bad", "good", "good"]
SPANS = [[[2, 6]], None, [[0, 6], [8, 11]], []]


def rows() -> list[dict[str, Any]]:
    return [
        {"id": f"t{i}", "review": text, "mood": label, "why": spans, "part": part}
        for i, (text, label, spans, part) in enumerate(
            zip(TEXTS, LABELS, SPANS, ("train", "test", "validation", "train"), strict=True)
        )
    ]


def write_csv(path: Path, content: list[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(content[0]), delimiter=delimiter)
        writer.writeheader()
        for row in content:
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})


def write_jsonl(path: Path, content: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def write_parquet(path: Path, content: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(content), path)


def write_dataset(path: Path, content: list[dict[str, Any]]) -> None:
    """Write what datasets' save_to_disk writes."""
    path.mkdir()
    table = pa.Table.from_pylist(content)
    with pa.OSFile(str(path / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "r.csv": write_csv,
    "r.tsv": lambda path, content: write_csv(path, content, "\t"),
    "r.jsonl": write_jsonl,
    "r.parquet": write_parquet,
    "folder": write_dataset,
}
COLUMNS = ["--text-column", "review", "--label-columns", "mood", "--id-column", "id", "--rationale-column", "why"]


def prepared(folder: Path, name: str, content: list[dict[str, Any]], *words: str) -> pa.Table:
    WRITERS[name](folder / name, content)
    output = folder / "out.parquet"
    assert main(["train", "prepare", str(folder / name), "-o", str(output), "--input", "text", *words]) == 0
    return pq.read_table(output)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_table_is_read_alike(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = prepared(tmp_path, name, rows(), *COLUMNS, "--split", "part")
    assert table.column_names == ["header", "sequence", "split", "label", "rationale"]
    assert table["sequence"].to_pylist() == TEXTS
    assert table["label"].to_pylist() == LABELS
    assert table["header"].to_pylist() == ["t0", "t1", "t2", "t3"]
    assert table["split"].to_pylist() == ["train", "test", "validation", "train"]
    assert [spans or [] for spans in table["rationale"].to_pylist()] == [spans or [] for spans in SPANS]
    made = json.loads(table.schema.metadata[b"wyr"])
    assert (made["input"], made["ranks"], made["counts"]["kept"]) == ("text", ["label"], 4)
    reads = load_reads(read_table(tmp_path / "out.parquet"), [Rank("label", ("bad", "good"))], "train")
    assert [reads.text(i).decode() for i in range(2)] == [TEXTS[0], TEXTS[3]]
    assert reads.labels.tolist() == [[1], [1]]
    assert [spans.tolist() for spans in reads.rationales] == [[[2, 6]], []]
    assert not reads.in_frame.any()


def test_a_text_is_split_by_its_hash_wherever_it_stands(tmp_path: Path) -> None:
    content = [{"text": f"text number {i % 150}", "label": "x"} for i in range(300)]
    table = prepared(tmp_path, "r.jsonl", content)
    found = dict(zip(table["sequence"].to_pylist(), table["split"].to_pylist(), strict=True))
    again = list(zip(table["sequence"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert all(found[text] == part for text, part in again), "a text that is there twice is in one part"
    for text, part in found.items():
        bucket = int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) % 100
        assert part == ("test" if bucket < 2 else "validation" if bucket < 12 else "train")
    assert table["header"].to_pylist()[:2] == ["r 1", "r 2"]


def test_labels_of_several_columns_and_of_lists_are_a_rank_each(tmp_path: Path) -> None:
    content = [{"text": t, "rude": i % 2, "wrong": [None, 1, 0, 1][i]} for i, t in enumerate(TEXTS)]
    table = prepared(tmp_path, "r.csv", content, "--label-columns", "rude,wrong", "--incomplete", "null")
    assert table["rude"].to_pylist() == ["no", "yes", "no", "yes"]
    assert table["wrong"].to_pylist() == [None, "yes", "no", "yes"]
    assert choose_ranks(table, ("rude", "wrong"), 1) == [Rank("rude", ("no", "yes")), Rank("wrong", ("no", "yes"))]
    content = [{"text": t, "labels": labels} for t, labels in zip(TEXTS, ([2, 0], [], [0], [1]), strict=True)]
    table = prepared(tmp_path, "r.jsonl", content, "--label-names", "b,c,a")
    assert table.column_names[3:] == ["a", "b", "c"]
    assert table["b"].to_pylist() == ["yes", "no", "yes", "no"]
    assert table["c"].to_pylist() == ["no", "no", "no", "yes"]


LABEL = st.sampled_from(["yes", "no", None])


@given(st.integers(0, 3).flatmap(lambda n: st.lists(st.tuples(*[LABEL] * n), max_size=60)), st.integers(0, 99))
def test_every_text_is_in_one_part_whatever_its_labels(labels: list[Labels], seed: int) -> None:
    rule = SplitRule(test_share=0.1, validation_share=0.2, seed=seed)
    held = stratified_by_labels(labels, rule)
    assert len(held) == len(labels)
    assert set(held.tolist()) <= {0, 1, 2}
    assert held.tolist() == stratified_by_labels(labels, rule).tolist()


def off_shares(held: np.ndarray, has: np.ndarray, rule: SplitRule) -> list[float]:
    """Return for train, validation and test how far the share of the worst label is from the whole's, of the bound.

    A part's share of a label, and of the texts, is rounded to whole texts: by less than 1 for the test part; by less
    than 2 for validation, which is a share of what is not tested; by less than 3 for the rest. If c of a part's s texts
    have a label that the share p of all texts has, and c and s are off by less than m, |c/s - p| < m (1 + p)/s.
    """
    whole, found = has.mean(axis=0), []
    for part, most in enumerate((3, 2, 1)):
        own = has[held == part]
        found.append(float((abs(own.mean(axis=0) - whole) * len(own) / (most * (1 + whole))).max()))
    return found


@pytest.mark.parametrize("seed", range(10))
def test_every_part_has_its_share_of_every_label(seed: int) -> None:
    rng, rule = np.random.default_rng(seed), SplitRule(seed=seed)
    has = rng.random((2000, 7)) < (0.002, 0.3, 0.01, 0.9, 0.1, 0.03, 0.005)
    labels: list[Labels] = [tuple("yes" if label else "no" for label in row) for row in has.tolist()]
    held = stratified_by_labels(labels, rule)
    assert max(off_shares(held, has, rule)) < 1, "of 40 texts to test, 0.0375 for a label of half of all"
    assert max(off_shares(stratified_splits(has[:, -1].astype(np.int64), rule), has, rule)) > 1, "by the last label"
    unknown = rng.random(2000) < 0.02
    for row in np.flatnonzero(unknown):
        labels[row] = (*labels[row][:-1], None)
    held = stratified_by_labels(labels, rule)
    assert max(off_shares(held, np.column_stack([has[:, :-1], unknown]), rule)) < 1


def test_labels_that_are_all_rare_leave_no_part_empty() -> None:
    labels: list[Labels] = [tuple(("no", "yes")[i // 10 == label] for label in range(50)) for i in range(500)]
    assert np.bincount(stratified_by_labels(labels, SplitRule())).tolist() == [440, 50, 10]


def test_a_table_of_several_labels_is_split_by_all_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    has = rng.random((1000, 3)) < (0.02, 0.2, 0.5)
    content = [{"text": f"t {i}", "a": int(row[0]), "b": int(row[1]), "c": int(row[2])} for i, row in enumerate(has)]
    words = ["--label-columns", "a,b,c", "--split", "stratified", "--test-share", "0.1", "--seed", "5"]
    table = prepared(tmp_path, "r.jsonl", content, *words)
    assert table["sequence"].to_pylist() == [row["text"] for row in content]
    held = np.array([("train", "validation", "test").index(part) for part in table["split"].to_pylist()])
    rule = SplitRule(test_share=0.1, seed=5)
    assert max(off_shares(held, has, rule)) < 1
    labels: list[Labels] = list(zip(*(table[name].to_pylist() for name in "abc"), strict=True))
    assert held.tolist() == stratified_by_labels(labels, rule).tolist()


def test_numbers_are_called_as_datasets_or_the_user_calls_them(tmp_path: Path) -> None:
    about = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": TEXTS, "label": [0, 1, 1, 0]}).replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, tmp_path / "a.parquet")
    words = ["train", "prepare", str(tmp_path / "a.parquet"), "--input", "text", "-o", str(tmp_path / "out.parquet")]
    assert main(words) == 0
    assert pq.read_table(tmp_path / "out.parquet")["label"].to_pylist() == ["neg", "pos", "pos", "neg"]
    assert main([*words, "--label-names", "NEGATIVE,POSITIVE"]) == 0
    assert pq.read_table(tmp_path / "out.parquet")["label"].to_pylist() == [
        "NEGATIVE",
        "POSITIVE",
        "POSITIVE",
        "NEGATIVE",
    ]


def test_pairs_keep_both_texts(tmp_path: Path) -> None:
    content = [
        {"a": "né", "b": "yes", "label": "x"},
        {"a": "", "b": "no", "label": "x"},
        {"a": "z", "b": None, "label": "y"},
    ]
    table = prepared(tmp_path, "r.jsonl", content, "--text-column", "a", "--pair-column", "b", "--split", "stratified")
    assert table["second"].to_pylist() == ["yes", "no", None]
    read = read_table(tmp_path / "out.parquet")
    reads = load_reads(read.set_column(2, "split", pa.array(["train"] * 3)), [Rank("label", ("x", "y"))], "train")
    assert [reads.text(i).decode() for i in range(3)] == ["né\nyes", "\nno", "z"]
    assert reads.second is not None
    assert reads.second.tolist() == [4, 1, -1]


def test_proteins_are_sequences_of_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.csv"
    path.write_text("sequence,label\nMKV LT\nMKVL,enzyme\nMK7L,enzyme\n,enzyme\n".replace(" LT", "LT,other"))
    words = ["train", "prepare", str(path), "--input", "proteins", "-o", str(tmp_path / "p.parquet")]
    assert main(words) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["dropped"] == {"characters of no sequence": 1, "no residues": 1}
    table = read_table(tmp_path / "p.parquet")
    assert (input_of(table), table["sequence"].to_pylist()) == ("proteins", ["MKVLT", "MKVL"])


CASES = [
    ("r.csv", "--text-column nope --label-columns mood", "no column 'nope'"),
    ("r.csv", "--text-column review", "expected one of labels. Name it: --label-columns."),
    ("r.csv", "--text-column review --label-columns mood,nope", "'nope' too. Mend --label-columns."),
    ("r.csv", "--text-column review --label-columns mood,id", "row 1, column 'mood': got 'good', expected 0 or 1"),
    (
        "r.csv",
        "--text-column review --label-columns mood --rationale-column id",
        "column 'id': got 't0', expected a list",
    ),
    ("r.csv", "--text-column review --label-columns mood --split mood", "column 'mood': got 'good', expected train"),
    ("r.csv", "--label-columns mood --text-column review --ranks genus", "--ranks: got it with --input text"),
    ("r.csv", "--label-columns mood --text-column review --seed 3", "--seed: got it with --split hash"),
    ("r.txt", "--label-columns mood", "got a file that ends in '.txt', expected .csv, .tsv, .jsonl or .parquet"),
    ("bad.jsonl", "", "bad.jsonl, line 2: got "),
    (
        "late.jsonl",
        "",
        "late.jsonl, row 2, column 'why': got [[2, 99]], expected a list of spans [start, end) from 0 to 4",
    ),
    ("nul.jsonl", "", "nul.jsonl, row 1, column 'text': got 'a\\x00b', expected text"),
    ("mixed.jsonl", "--label-columns label", "row 2, column 'label': got 'x', expected a list of labels"),
    ("splits", "", "splits: got a folder of the data sets 'test', 'train', expected one of them. Name it, as in "),
    ("splits/test", "--text-column review --label-columns mood", ""),
    ("r.csv", "--label-columns part --text-column review --label-names a,b", ""),
]


@pytest.mark.parametrize(("name", "options", "words"), CASES)
def test_what_cannot_be_meant_is_said(
    name: str, options: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "r.csv", rows())
    (tmp_path / "r.txt").write_text("a\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "label": "x"}\nnot json\n')
    late = [{"text": "four", "label": "x", "why": spans} for spans in ([], [[2, 99]])]
    write_jsonl(tmp_path / "late.jsonl", late)
    write_jsonl(tmp_path / "nul.jsonl", [{"text": "a\0b", "label": "x"}])
    write_jsonl(tmp_path / "mixed.jsonl", [{"text": "a", "label": ["x"]}, {"text": "b", "label": "x"}])
    (tmp_path / "splits").mkdir()
    for part in ("train", "test"):
        write_dataset(tmp_path / "splits" / part, rows())
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    more = ["--rationale-column", "why"] if name == "late.jsonl" else []
    command = ["train", "prepare", str(tmp_path / name), "--input", "text", *options.split(), *more]
    code = main([*command, "-o", str(tmp_path / "out.parquet")])
    message = capsys.readouterr().err
    if words:
        assert code in (1, 2)
        assert words in message
        assert not (tmp_path / "out.parquet").exists()
    else:
        assert code == 0, "names are for numbers only, and a split of a folder is a folder"
