"""Masks of texts and proteins in the report, and in the formats of other tools."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import Checked
from text_masks import HARD_TEXTS, Text, many_labels, one_label, spans_of, write_texts

from wyr_batch.cli import main
from wyr_batch.cli.masks.convert import FORMATS
from wyr_batch.convert.rationales import hard_spans, word_means
from wyr_batch.masks.file import open_masks
from wyr_batch.report.counting.picks import Picker
from wyr_batch.report.data import gather
from wyr_batch.report.page import page

TEXTS = [Text(text) for text in (*HARD_TEXTS, "a fine film " * 40, "so so", "dull")]
LABELS = ["joy", "anger", "fear"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("texts")
    write_texts(made / "one.parquet", TEXTS, one_label(len(TEXTS)))
    write_texts(made / "many.parquet", TEXTS * 4, many_labels(4 * len(TEXTS), LABELS))
    proteins = [Text("MKVLAAGIVGLP"), Text("WYGHKAEDC")]
    write_texts(made / "proteins.parquet", proteins, one_label(2, ("a", "b")), kind="proteins", unit="aa")
    return made


def numbers(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(gather([open_masks(path)]), allow_nan=False))
    return data


def test_words_and_characters_are_those_of_a_recount(folder: Path) -> None:
    path = folder / "one.parquet"
    (found,) = numbers(path)["files"]
    rows = pq.read_table(path).to_pylist()
    assert (found["input"], found["unit"], found["bases"]) == ("text", "characters", sum(len(t.text) for t in TEXTS))
    words = [len(re.findall(r"\S+", re.sub(r"[\u202e\u202c\ufeff]", "x", text.text))) for text in TEXTS]
    assert found["words"]["total"] == sum(words)
    within = [
        len(re.findall(r"\S+", row["sequence"][segment["start"] : segment["end"]]))
        for row in rows
        for segment in row["segments"] or ()
    ]
    assert found["words"]["per_segment"] == np.bincount(within).tolist()
    assert found["words"]["per_segment_mean"] == pytest.approx(np.mean(within))
    parts = f"select unnest(segments) as s from '{path}'"
    lengths = duckdb.sql(f'select ceil((s."end" - s.start) / 5)::int, count(*) from ({parts}) group by 1')
    by_length = dict(lengths.fetchall())
    assert found["segments"]["lengths"] == [by_length.get(i + 1, 0) for i in range(max(by_length))]
    kept = {call: sum(row["label"] == row["label_masked"] == call for row in rows) for call in ("positive", "negative")}
    assert {call["label"]: call["kept"] for call in found["ranks"][0]["calls"]} == kept


def test_the_page_speaks_of_texts(folder: Path) -> None:
    text = page(numbers(folder / "one.parquet"))
    seen = Checked(text)
    for word in (f"{len(TEXTS)} texts", "characters", "Words of segments", "Texts word by word", "Texts explained"):
        assert word in seen.said, word
    for word in ("read(?! in)", "bp", "base", "bases", "6-mer", "strand", "rank"):
        assert not re.search(rf"\b{word}s?\b", seen.said), word
    assert "sunburst" not in text.split("</style>")[1]
    assert seen.tags.count("script") == 1
    assert not set(text) & set("\x00\x07\x1b\x9b\u202e")
    assert page(numbers(folder / "proteins.parquet")).count("residue") > 2


def test_labels_of_a_multi_label_classifier_are_bars(folder: Path) -> None:
    data = numbers(folder / "many.parquet")
    rows = [row for row in pq.read_table(folder / "many.parquet").to_pylist() if row["mask"]]
    said = Checked(page(data)).said
    for name in LABELS:
        given = [row for row in rows if row[name] == "yes"]
        kept = sum(row[f"{name}_masked"] == "yes" for row in given)
        for part, whole in ((len(given), len(rows)), (kept, len(given))):
            expected = "100 %" if part == whole else f"{100 * part / whole:.1f} %"
            assert re.search(rf"{name}\s+{re.escape(expected)}", said), (name, expected)
    assert "of its labels" in said
    assert "Ranks are called" not in said


def test_each_label_has_texts_of_its_own(folder: Path) -> None:
    rows = pq.read_table(folder / "many.parquet").to_pylist()
    (found,) = numbers(folder / "many.parquet")["files"]
    why = {read["row"]: read["why"] for read in found["drawn"]}
    for name in LABELS:
        has = [i for i, row in enumerate(rows) if row["mask"] and row[name] == "yes"]
        known = [i for i, row in enumerate(rows) if row["mask"]]
        if has:
            assert f"sure: {name}" in why[max(has, key=lambda i: (rows[i][f"{name}_prob"], -i))]
        assert f"unsure: {name}" in why[min(known, key=lambda i: (rows[i][f"{name}_prob"], i))]
    assert len(found["drawn"]) <= 20
    assert not {"sure", "unsure"} & {reason for reasons in why.values() for reason in reasons}
    said = Checked(page(numbers(folder / "many.parquet"))).said
    for name in LABELS:
        assert f"among the least confident ({name})" in said


@pytest.mark.parametrize(("n", "most"), [(4, 1), (20, 5), (40, 8)])
def test_labels_take_turns_and_leave_room_for_other_reasons(n: int, most: int, tmp_path: Path) -> None:
    names = [f"label {i}" for i in range(8)]
    masks = open_masks(write_texts(tmp_path / "m.parquet", TEXTS * 9, many_labels(9 * len(TEXTS), names, seed=5)))
    picker = Picker(n, masks.ranks, [True] * len(names))
    for rows in masks.rows():
        picker.add(rows)
    picked = picker.picked(many_labels=True)
    assert len(picked) == n
    for kind in ("sure", "unsure"):
        labels = [why.removeprefix(f"{kind}: ") for whys in picked.values() for why in whys if why.startswith(kind)]
        assert set(names[:most]) <= set(labels)
        assert sum(any(why.startswith(kind) for why in whys) for whys in picked.values()) <= max(most, n * 3 // 20 + 1)
    if n > 4:
        assert {"changed", "longest"} <= {why for whys in picked.values() for why in whys}


def test_drawn_texts_come_back_whole(folder: Path) -> None:
    (found,) = numbers(folder / "one.parquet")["files"]
    rows = pq.read_table(folder / "one.parquet").to_pylist()
    long = next(read for read in found["drawn"] if read["row"] == len(HARD_TEXTS))
    assert long["drawn_bp"] == long["length"] == 480
    for read in found["drawn"]:
        row = rows[read["row"]]
        assert read["bases"] == row["sequence"]
        assert (read["starts"], read["ends"]) == (row["token_start"], row["token_end"])
        assert read["kept"] == [[s["start"], s["end"]] for s in row["segments"]]


def test_files_of_two_kinds_are_not_compared(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(folder / "one.parquet"), str(folder / "proteins.parquet")]
    assert main(["report", *both, "-o", str(tmp_path / "x.html")]) == 2
    assert "expected files of one kind" in capsys.readouterr().err
    out = tmp_path / "ok.html"
    assert main(["report", both[0], str(folder / "many.parquet"), "-q", "-o", str(out)]) == 0
    assert "2 files, 75 texts" in Checked(out.read_text()).said


def converted(path: Path, form: str, *words: str) -> str:
    out = path.with_name(f"out.{form}")
    assert main(["convert", str(path), "--to", form, "-q", "--overwrite", "-o", str(out), *words]) == 0
    return out.read_text()


def eraser_words(text: str) -> list[str]:
    """Return the words as the benchmark cuts its documents: lines, then what stands between spaces, stripped."""
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", text))
    return [word for line in lines for part in line.split(" ") if (word := part.strip())]


def test_eraser_has_a_value_for_each_word(folder: Path) -> None:
    rows = {row["read_id"]: row for row in pq.read_table(folder / "one.parquet").to_pylist()}
    found = [json.loads(line) for line in converted(folder / "one.parquet", "eraser").splitlines()]
    assert [one["annotation_id"] for one in found] == [name for name, row in rows.items() if row["mask"]]
    for one in found:
        row = rows[one["annotation_id"]]
        (rationale,) = one["rationales"]
        soft, words = rationale["soft_rationale_predictions"], eraser_words(row["sequence"])
        assert rationale["docid"] == row["read_id"]
        assert len(soft) == len(words)
        place = 0
        for word, value in zip(words, soft, strict=True):
            place = row["sequence"].index(word, place)
            spans = zip(row["token_start"], row["token_end"], row["mask"], strict=True)
            inside = [mask for start, end, mask in spans if start < place + len(word) and end > place]
            assert value == pytest.approx(np.mean(inside) if inside else 0, abs=1e-4)
            place += len(word)
        kept = [
            i for span in rationale["hard_rationale_predictions"] for i in range(span["start_token"], span["end_token"])
        ]
        assert kept == [i for i, value in enumerate(soft) if value >= 0.5]
        assert one["classification"] == row["label"]
        assert one["classification_scores"] == {row["label"]: pytest.approx(row["label_prob"])}


@given(st.lists(st.booleans(), max_size=30))
def test_hard_rationales_are_the_runs_of_kept_words(kept: list[bool]) -> None:
    spans = hard_spans(np.array(kept, np.float64))
    assert [i for span in spans for i in range(span["start_token"], span["end_token"])] == [
        i for i, is_kept in enumerate(kept) if is_kept
    ]
    assert all(a["end_token"] < b["start_token"] for a, b in pairwise(spans))


def test_a_word_without_tokens_has_no_evidence() -> None:
    words, none = np.array([[0, 2], [3, 5]]), np.zeros(0, np.int32)
    assert word_means(words, np.zeros(0, np.float32), none, none).tolist() == [0, 0]


def test_eraser_needs_one_classification(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(folder / "many.parquet"), "--to", "eraser"]) == 2
    assert "expected one of joy, anger, fear: a text has one classification" in capsys.readouterr().err
    first = json.loads(converted(folder / "many.parquet", "eraser", "--rank", "joy").splitlines()[0])
    assert first["classification"] in ("yes", "no")
    assert main(["convert", str(folder / "one.parquet"), "--to", "eraser", "--rank-mask", "label"]) == 1
    assert "no column 'mask_label'" in capsys.readouterr().err


def test_displacy_renders_the_documents(folder: Path) -> None:
    rows = pq.read_table(folder / "one.parquet").to_pylist()
    documents = [json.loads(line) for line in converted(folder / "one.parquet", "displacy").splitlines()]
    assert len(documents) == len(rows)
    for document, row in zip(documents, rows, strict=True):
        assert document["text"] == row["sequence"]
        assert [(e["start"], e["end"]) for e in document["ents"]] == [
            (s["start"], s["end"]) for s in row["segments"] or ()
        ]
        assert {entity["label"] for entity in document["ents"]} <= {row["label"]}
    (first, *_) = (json.loads(line) for line in converted(folder / "many.parquet", "displacy").splitlines())
    assert {entity["label"] for entity in first["ents"]} == {"kept"}
    displacy = pytest.importorskip("spacy.displacy", reason="spaCy is not installed")
    for document, row in zip(documents, rows, strict=True):
        html = displacy.render([document], style="ent", manual=True, jupyter=False)
        assert html.count("<mark") == len(row["segments"] or ())
        for segment in row["segments"] or ():
            part = row["sequence"][segment["start"] : segment["end"]]
            assert part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;") in html


def test_labels_that_are_html_do_not_run(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "evil.parquet", [Text("so", [1.0])], one_label(1, ("<script>x</script>",)))
    (document,) = map(json.loads, converted(path, "displacy").splitlines())
    assert document["ents"][0]["label"] == "&lt;script&gt;x&lt;/script&gt;"


def test_lines_of_other_formats_are_in_code_points(folder: Path) -> None:
    rows = pq.read_table(folder / "one.parquet").to_pylist()
    bed = [line.split("\t") for line in converted(folder / "one.parquet", "bed").splitlines()]
    assert [(name, int(start), int(end)) for name, start, end, *_ in bed] == [
        (row["read_id"], s["start"], s["end"]) for row in rows for s in row["segments"] or ()
    ]
    lines = [line.split("\t") for line in converted(folder / "one.parquet", "bedgraph").splitlines()]
    covered = {name: set[int]() for name, *_ in lines}
    for name, start, end, _ in lines:
        covered[name] |= set(range(int(start), int(end)))
    for row in rows:
        tokens = zip(row["token_start"] or (), row["token_end"] or (), strict=True)
        inside = {place for start, end in tokens for place in range(start, end)}
        assert inside <= covered.get(row["read_id"], set())
        gaps = set(range(row["length"])) - inside
        assert not gaps & covered.get(row["read_id"], set()), "what is in no token has no value"
    tsv = [line.split("\t") for line in converted(folder / "one.parquet", "tsv").splitlines()]
    assert tsv[1][-1] == ",".join(f"{s['start']}-{s['end']}" for s in rows[0]["segments"])


def test_proteins_as_fasta_are_hidden_by_x(folder: Path) -> None:
    path = folder / "proteins.parquet"
    converted(path, "fasta", "--hidden", "n")
    rows = pq.read_table(path).to_pylist()
    with pysam.FastxFile(str(path.with_name("out.fasta"))) as found:
        for record, row in zip(found, rows, strict=True):
            kept = {i for s in row["segments"] for i in range(s["start"], s["end"])}
            assert record.sequence == "".join(c if i in kept else "X" for i, c in enumerate(row["sequence"]))


@pytest.mark.parametrize("form", ["kreport", "fasta", "fastq", "microbert-json", "bam", "reference"])
def test_formats_of_bases_are_refused_for_texts(folder: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "one.parquet"
    assert main(["convert", str(path), "--to", form, "-o", str(folder / "no.bam")]) == 2
    said = capsys.readouterr().err
    assert f"--to {form}: got masks of texts, expected masks of reads" in said
    assert "For texts there are bed, bedgraph, tsv, eraser, displacy." in said
    assert "text" not in FORMATS[form].kinds
    assert main(["convert", str(folder / "proteins.parquet"), "--to", "eraser"]) == 2
    assert "expected masks of texts" in capsys.readouterr().err


def test_tokens_of_the_fixture_have_gaps() -> None:
    assert any((spans_of(text.text)[1:, 0] > spans_of(text.text)[:-1, 1]).any() for text in TEXTS)
