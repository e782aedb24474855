"""Texts in every format come out as they were put in, whichever tool wrote them."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import (
    PAIRS,
    SAVED,
    WRITERS,
    expected,
    of_chunks,
    packed,
    read,
    read_until_damage,
    table,
    with_csv,
    with_json,
)

from wyr_batch.errors import InputError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.digest import ReadsDigest
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.open import Texts

COLUMNS = TextColumns("sentence1", "sentence2", "idx")


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_read_whichever_tool_wrote_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, PAIRS)
    knows_nulls = not name.endswith(("csv", "tsv"))
    assert read(path, COLUMNS) == expected(PAIRS, knows_nulls)
    alone = [(str(i + 1), text, None) for i, (_, text, _) in enumerate(expected(PAIRS))]
    assert read(path, TextColumns("sentence1")) == alone


def test_a_folder_that_datasets_saved_is_read() -> None:
    assert read(SAVED, COLUMNS) == expected(PAIRS)
    assert read(f"{SAVED}/", COLUMNS, chunk_reads=3) == expected(PAIRS)
    shard = SAVED / "data-00000-of-00002.arrow"
    assert read(shard, COLUMNS) == expected(PAIRS)[:4]


@pytest.mark.parametrize("about", [["dataset_dict.json"], []])
def test_of_a_folder_of_splits_one_is_to_be_named(about: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    for name in ("train", "test"):
        shutil.copytree(SAVED, folder / name)
    (folder / "cache").mkdir()
    for name in about:  # it also names one that is not there
        (folder / name).write_text(json.dumps({"splits": ["train", "test", "gone"]}))
    message = "got a folder of the data sets 'test', 'train', expected one of them. Name it, as in "
    for path in (str(folder), f"{folder}/"):
        with pytest.raises(InputError, match=rf"^{path}: {message}{folder}/test\.$"):
            Texts(path, COLUMNS)
    assert read(folder / "test", COLUMNS) == expected(PAIRS)


@pytest.mark.parametrize("how", [".gz", ".bgz", ".zst"])
@pytest.mark.parametrize("name", ["csv.csv", "csv.tsv", "json.jsonl"])
def test_tables_of_text_may_be_packed(name: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, PAIRS)
    assert read(packed(path, how), COLUMNS) == read(path, COLUMNS)


@pytest.mark.parametrize("how", ["", ".gz", ".bgz", ".zst"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_plain_text_is_a_text_a_line(how: str, newline: str, end: str, tmp_path: Path) -> None:
    lines = ["first", "", "naïve 🎬", "a\rb", "{no json", "last"]
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + (newline.join(lines) + end.replace("\n", newline)).encode())
    found = read(packed(path, how) if how else path)
    assert found == [(str(i + 1), line, None) for i, line in enumerate(lines)]


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.none() | TEXT, st.none() | TEXT), max_size=12),
    st.sampled_from(["csv.csv", "csv.tsv", "json.jsonl", "ascii.ndjson", "arrow.parquet", "polars.arrow"]),
    st.integers(1, 6),
    st.integers(1, 60),
    st.integers(1, 40),
)
def test_any_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[str | None, str | None]],
    name: str,
    chunk_reads: int,
    chunk_bases: int,
    block_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("any") / name
    WRITERS[name](path, pairs)
    found = read(path, COLUMNS, chunk_reads=chunk_reads, chunk_bases=chunk_bases, block_bytes=block_bytes)
    assert found == expected(pairs, not name.startswith("csv"))


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXT.map(lambda text: text.replace("\n", " ").rstrip("\r"))), st.integers(1, 40), st.integers(1, 6))
def test_any_lines_come_back(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], block_bytes: int, chunk_reads: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).removeprefix("\ufeff").encode())
    lines = [line.removeprefix("\ufeff") if i == 0 else line for i, line in enumerate(lines)]
    found = read(path, block_bytes=block_bytes, chunk_reads=chunk_reads)
    assert [text for _, text, _ in found] == lines


def test_rows_longer_than_any_block_are_rows(tmp_path: Path) -> None:
    long = "🎬 a long text\n" * 200_000
    pairs = [("short", "x"), (long, long), ("after", "y")]
    for name in ("csv.csv", "json.jsonl", "arrow.parquet"):
        WRITERS[name](tmp_path / name, pairs)
        with Texts(tmp_path / name, COLUMNS) as texts:
            assert of_chunks(texts) == expected(pairs)


def test_checksums_see_bytes_and_pairs_but_no_chunks(tmp_path: Path) -> None:
    def digest(*chunks: ReadChunk) -> tuple[int, ...]:
        found = ReadsDigest()
        for chunk in chunks:
            found.add(chunk)
        return found.values

    whole = ReadChunk.from_texts(["a", "bé", ""], ["b", "c", "d"])
    assert digest(whole) == digest(whole.part(0, 1), whole.part(1, 3))
    others = [
        ReadChunk.from_texts(["a\nb", "bé\nc", "\nd"]),
        ReadChunk.from_texts(["a", "bè", ""], ["b", "c", "d"]),
        ReadChunk.from_texts(["a", "bé\nc", ""], ["b", "", "d"]),
    ]
    assert all(digest(whole) != digest(other) for other in others)
    assert of_chunks([whole.part(1, 3)]) == [("2", "bé", "c"), ("3", "", "d")]
    for texts in (["a\0"], ["\ud800"]):
        with pytest.raises(InputError, match="text 1: got "):
            ReadChunk.from_texts(texts)


def test_the_column_of_texts_is_found_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"

    def texts(rows: list[dict[str, object]], columns: TextColumns | None = None) -> list[str]:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [text for _, text, _ in read(path, columns)]

    assert texts([{"other": "x", "sentence": "b", "text": "a"}]) == ["a"]
    assert texts([{"other": "x", "sentence": "b"}]) == ["b"]
    assert texts([{"n": 1, "body": "c"}, {"n": 2}, {"body": "d", "more": None}]) == ["c", "", "d"]
    assert texts([{"a": "x", "b": "y", "c": "z"}], TextColumns(pair="b", id="c")) == ["x"]
    with pytest.raises(InputError, match=r"got the columns of strings 'a', 'b', expected .* Name it: --text-column"):
        texts([{"a": "x", "b": "y"}])
    with pytest.raises(InputError, match=r"got no column 'z', expected one of 'a', 'b'\. Mend --pair-column"):
        texts([{"a": "x", "b": "y"}], TextColumns("a", pair="z"))
    with pytest.raises(InputError, match="got no column of strings among 'a', expected"):
        texts([{"a": 1}])
    csv = tmp_path / "x.csv"
    csv.write_text("n,label,body\n1,2.5,007\n3,true,seven\n")
    assert [text for _, text, _ in read(csv)] == ["007", "seven"]
    csv.write_text("body\n007\n\n8\n")
    assert read(csv) == [("1", "007", None), ("2", "", None), ("3", "8", None)]
    csv.write_text("text,n,text\na,1,b\n")
    with pytest.raises(InputError, match="got 2 columns 'text', expected one"):
        read(csv)


def test_columns_of_other_types_are_texts_where_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    words = pa.array(["a", None, "é"])
    columns = {"d": words.dictionary_encode(), "l": words.cast(pa.large_string()), "n": pa.nulls(3), "f": [0.5, 1, 2]}
    pq.write_table(pa.table({**columns, "b": words.cast(pa.binary()), "i": [[1], [2], [3]]}), path)
    for name in ("d", "l"):
        assert read(path, TextColumns(name, id="f")) == [("0.5", "a", None), ("1", "", None), ("2", "é", None)]
    assert [text for _, text, _ in read(path, TextColumns("n"))] == ["", "", ""]
    for columns_, got in (
        (TextColumns("f"), "the column 'f' of type double, expected one of strings"),
        (TextColumns("b"), "the column 'b' of type binary"),
        (TextColumns("d", id="i"), r"the column 'i' of type list<.*>, expected one of strings or numbers"),
    ):
        with pytest.raises(InputError, match=got):
            read(path, columns_)


def test_standard_input_is_lines_json_or_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def piped(data: bytes, columns: TextColumns | None = None) -> list[tuple[str, str, str | None]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return read("-", columns)

    with_json(tmp_path / "a", PAIRS)
    assert piped((tmp_path / "a").read_bytes(), COLUMNS) == expected(PAIRS)
    for delimiter in ",\t":
        with_csv(tmp_path / "a", PAIRS, delimiter)
        assert piped((tmp_path / "a").read_bytes(), COLUMNS) == expected(PAIRS, nulls=False)
    assert piped(b"a,b\nc\n") == [("1", "a,b", None), ("2", "c", None)]
    pq.write_table(table(PAIRS), tmp_path / "a")
    with pytest.raises(InputError, match="<stdin>: got Parquet as a stream, expected a file"):
        piped((tmp_path / "a").read_bytes(), COLUMNS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"one\ntwo \xff\nthree\n", "a.txt, line 2: got byte 0xff, which is not UTF-8, at place 5 of"),
        ("a.txt", b"one\ntw\0o\n\xff\n", r"a.txt, line 2: got a NUL byte at place 3 of 'tw\\x00o', expected UTF-8"),
        (
            "a.csv",
            b'text,n\none,1\n"two,2\nthree,3\n',
            "a.csv, row 2, line 3 to 4: got fields that cannot",
        ),
        ("a.csv", b'text,n\none,1\n"two"x,2\n', "a.csv, row 2, line 3: got fields that cannot be told apart"),
        ("a.csv", b'text,n\n"one",1\n"two,\n",2,3\n', "a.csv, row 2, line 3: got 3 fields, expected 2"),
        ("a.csv", b"text,n\none,1\ntwo,\xe9\n", "a.csv, row 2, line 3: got byte 0xe9, which is not UTF-8"),
        (
            "a.jsonl",
            b'{"text": "one"}\n\n{"text": "two"\n',
            'a.jsonl, line 3: got \'{"text": "two"\' .*, expected a JSON',
        ),
        ("a.jsonl", b'{"text": "one"}\n[1]\n', r"a.jsonl, line 2: got '\[1\]', expected a JSON object"),
        ("a.jsonl", b'{"text": "one"}\n{"text": 2}\n', "a.jsonl, line 2: got '2' as 'text', expected a string or null"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\\ud800"}\n', "a.jsonl, line 2: got half of a surrogate pair"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\\u0000"}\n', "a.jsonl, row 2: got a NUL character in"),
    ],
)
def test_damage_is_named_after_the_good_rows(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    texts, error = read_until_damage(path)
    assert texts == ["one"]
    assert re.search(message, error), error


def test_what_cannot_be_texts_is_refused_on_opening(tmp_path: Path) -> None:
    def refused(name: str, data: bytes, message: str, columns: TextColumns | None = None) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            Texts(path, columns or TextColumns()).close()

    refused("a.json", b'[{"text": "a"}]\n', "line 1: got .* expected a JSON object. Write one JSON object a line")
    refused("a.txt", b"a line\n", "got a plain text, expected a table", TextColumns("text"))
    refused("a.csv", b"\xff\xfea\0", "got UTF-16 text")
    refused("a.xlsx", b"PK\x03\x04...", "got a zip file")
    refused("a.bam", b"BAM\1...", "got a file of reads")
    refused("a.parquet", b"PAR1" + bytes(50), "got unreadable Parquet")
    refused("a.arrow", b"\xff\xff\xff\xff\x08\0\0\0", "got unreadable Arrow data")
    pq.write_table(table(PAIRS), tmp_path / "b")
    refused("c.parquet.gz", packed(tmp_path / "b", ".gz").read_bytes(), "got Parquet inside gzip")
    for name, content, message in (
        ("state.json", {"_data_files": [{"filename": "../a.arrow"}]}, "got the file '../a.arrow', expected one in its"),
        ("state.json", {"_data_files": [{"filename": "gone.arrow"}]}, "got unreadable Arrow data .No such file"),
        ("dataset_dict.json", {"splits": ["train"]}, "got dataset_dict.json and none of the folders that it names"),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            Texts(tmp_path)
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"got a folder without state\.json"):
        Texts(tmp_path)
    with pytest.raises(InputError, match="got no such file, expected texts as lines"):
        Texts(tmp_path / "none")


@pytest.mark.parametrize("name", ["", "a.csv", "a.jsonl", "a.txt"])
def test_nothing_to_read_is_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / (name or "a")
    said: list[str] = []
    for content in ("", "text,n\n") if name == "a.csv" else ("",):
        path.write_text(content)
        assert read(path, warn=said.append) == []
    assert all("so no texts" in line for line in said)
    assert said


def test_damaged_columns_are_named_after_the_good_rows(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(20_000)]
    path = tmp_path / "a.parquet"
    options = {"use_dictionary": False, "compression": "none", "write_page_checksum": True, "data_page_size": 4096}
    pq.write_table(pa.table({"text": texts}), path, row_group_size=8000, **options)
    data = bytearray(path.read_bytes())
    data[data.index(b"text 12345") + 5] ^= 1
    path.write_bytes(data)
    found, error = read_until_damage(path)
    assert found == texts[: len(found)]
    assert 12345 - 2048 < len(found) <= 12345
    assert f"a.parquet, row {len(found) + 1}: got Parquet data that cannot be read" in error
    folder = tmp_path / "saved"
    folder.mkdir()
    for file in SAVED.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    shard = folder / "data-00001-of-00002.arrow"
    whole = shard.read_bytes()
    for left, n_good in ((len(whole) - 8, 8), (len(whole) // 2, 4)):
        shard.write_bytes(whole[:left])
        found, error = read_until_damage(folder, COLUMNS)
        assert len(found) == n_good
        assert f"saved, row {n_good + 1}: got Arrow data that cannot be read" in error
    bad = pa.StringArray.from_buffers(2, *(pa.py_buffer(b) for b in (b"\0\0\0\0\1\0\0\0\2\0\0\0", b"a\xff")))
    with pa.ipc.new_file(tmp_path / "b.arrow", pa.schema([("text", pa.string())])) as file:
        file.write_batch(pa.record_batch([bad], ["text"]))
    found, error = read_until_damage(tmp_path / "b.arrow")
    assert found == ["a"]
    assert "b.arrow, row 2: got byte 0xff, which is not UTF-8" in error


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_a_cut_packed_file_gives_its_whole_rows_first(name: str, tmp_path: Path) -> None:
    rows = [f"text {i * 7919 % 10007}" for i in range(4000)]
    lines = {"a.txt": rows, "a.csv": ["text", *rows], "a.jsonl": [json.dumps({"text": row}) for row in rows]}[name]
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    cut = packed(path, ".gz")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    found, error = read_until_damage(cut)
    assert found == rows[: len(found)]
    assert 1000 < len(found) < 3500
    assert "line " in error
    assert "got the end of the file inside gzip data" in error
