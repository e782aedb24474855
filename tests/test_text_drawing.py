"""Texts and proteins drawn in a terminal, as HTML and as SVG, and `wyr-batch view` of their masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from text_masks import HARD_TEXTS, Text, many_labels, one_label, spans_of, write_texts

from wyr_batch.cli import main
from wyr_batch.draw.html import page_html, read_html
from wyr_batch.draw.kinds import PROTEINS, TEXTS
from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.draw.running import clusters
from wyr_batch.draw.svg import read_svg
from wyr_batch.draw.terminal import read_text
from wyr_batch.draw.words import word_numbers, word_segments
from wyr_batch.errors import InputError
from wyr_batch.masks.bases import with_bases
from wyr_batch.masks.drawn import drawn_read
from wyr_batch.masks.file import open_masks
from wyr_batch.ranks import Rank
from wyr_batch.rows.prediction import Prediction

SVG = "{http://www.w3.org/2000/svg}"
LETTERS = st.sampled_from(
    "abcdefgABC019 ,.!'  \n\té中文か🙂👍🏽\u200d\u0301שלוםعربى<&>\"[]\r\x1b\x00\u202e\u2028\u00a0"
)


def drawn(text: str, values: list[float], **other: Any) -> DrawnRead:
    spans, mask = spans_of(text), np.array(values, np.float32)
    starts, ends = spans[:, 0], spans[:, 1]
    kept = word_segments(mask, starts, ends, word_numbers(text, starts, ends))
    calls = (Call("label", "positive", 0.9, "positive", 0.8),)
    fields = {"read_id": "7", "mate": 0, "length": len(text), "status": "ok", "calls": calls, "kind": TEXTS, **other}
    return DrawnRead(
        bases=text, values=mask, starts=starts, ends=ends, kept=tuple((a, b) for a, b, _ in kept), **fields
    )


@st.composite
def texts(draw: st.DrawFn) -> DrawnRead:
    text = draw(st.text(LETTERS, min_size=1, max_size=120))
    n = len(spans_of(text))
    return drawn(text, draw(st.lists(st.sampled_from([0.0, 0.2, 0.49, 0.5, 0.9, 1.0]), min_size=n, max_size=n)))


def shown(text: str) -> str:
    """Return a text with every character as it may be shown, said once more: by its class, without the code's table."""
    safe = lambda c: c.isprintable() or c in "\u00a0\u200c\u200d\u200e\u200f"  # noqa: E731
    escaped = (c if safe(c) else " " if c == "\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def lines_of(read: DrawnRead, width: int, coloured: bool) -> list[tuple[int, str]]:
    """Return the first character, from 0, and the letters of each line."""
    lines = read_text(read, width, coloured).plain.split("\n")[2:]
    found = [re.fullmatch(r" *(\d+) ?(.*)", line) for line in lines]
    return [(int(line[1]) - 1, line[2]) for line in found if line]


@given(texts(), st.integers(20, 120))
@example(drawn("a", [0.0]), 20)
def test_every_character_is_drawn_once_and_in_order(read: DrawnRead, width: int) -> None:
    for coloured in (True, False):
        lines = lines_of(read, width, coloured)
        bounds = [*(start for start, _ in lines), read.length]
        assert bounds[0] == 0
        for (_, line), start, end in zip(lines, bounds, bounds[1:], strict=False):
            part = re.sub(r"\r?\n$", "", read.bases[start:end])
            letters = line if coloured else re.sub(r"[\[\]]", "", line)
            expected = shown(part) if coloured else re.sub(r"[\[\]]", "", shown(part))
            assert letters.rstrip() == expected.rstrip()
            assert "\n" not in part
            assert cell_len(line.rstrip()) <= max(width, 14), "an escape may be wider than the room"
    html = RunningText(read_html(read))
    assert html.text.split("\n") == [shown(line) for line in re.split(r"\r?\n", read.bases)]
    drawn_texts = ElementTree.fromstring(read_svg(read)).iter(f"{SVG}text")
    svg = "".join(element.text or "" for element in drawn_texts if element.get("textLength"))
    assert svg == shown(re.sub(r"\r?\n", "", read.bases))


class RunningText(HTMLParser):
    """What stands in the running text of a page, what of it is in segments, and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.kept, self.tags, self.open = "", "", set[str](), list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(dict(attrs).get("class") or tag)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "wyr-text" in self.open:
            self.text += data
            self.kept += data if "u" in self.open else ""


@given(texts())
def test_segments_are_underlined_with_the_spaces_in_them(read: DrawnRead) -> None:
    in_cluster = {place: c.start for c in clusters(read.bases) for place in range(c.start, c.end)}
    kept = {place for start, end in read.segments() for place in range(start, end)}
    expected = "".join(c for i, c in enumerate(read.bases) if in_cluster[i] in kept)
    lines = re.split(r"\r?\n", expected)
    assert RunningText(read_html(read)).kept == "\n".join(map(shown, lines))
    text = read_text(read, 60, coloured=True)
    underlined = [text.plain[s.start : s.end] for s in text.spans if getattr(s.style, "underline", False)]
    assert "".join(underlined) == "".join(map(shown, lines))


def test_plain_text_to_the_letter() -> None:
    read = drawn("Not a film to miss, 10/10!\r\nSee it.", [0, 0, 0, 0, 0.9, 0.6, 1, 0, 0, 0, 0.1, 0.7, 0.2])
    assert read_text(read, 30, coloured=False).plain == (
        "7\n35 characters, 13 tokens, mask mean 0.27\nlabel  positive 0.90\n       → positive 0.80  ✓ kept\n"
        " 1 Not a film to [miss,]\n21 [10]/10!\n29 See [it]."
    )


def test_words_go_on_over_tokens_but_not_over_ideographs() -> None:
    def words(text: str, *bounds: int) -> list[int]:
        places = np.array(bounds, np.int32)
        return word_numbers(text, places[:-1], places[1:]).tolist()

    assert words("unhappiness", 0, 2, 7, 11) == [0, 0, 0]
    assert words("don't", 0, 3, 4, 5) == [0, 1, 2]
    assert words("电影好", 0, 1, 2, 3) == [0, 1, 2]
    assert words("かな", 0, 1, 2) == [0, 1]
    assert words("한국어", 0, 1, 3) == [0, 0]
    assert words("α2β", 0, 1, 2, 3) == [0, 0, 0]
    values, starts, ends = np.array([1.0, 0.1, 0.4], np.float32), np.array([0, 2, 5]), np.array([2, 4, 6])
    (segment,) = word_segments(values, starts, ends, np.array([0, 0, 1]))
    assert segment == (0, 4, pytest.approx(0.55))


def seen_from_left(svg: str) -> list[tuple[float, str]]:
    """Return the lines of a picture: where each ends, and its pieces as they stand from left to right."""
    lines: dict[float, list[tuple[float, float, str]]] = {}
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if length := element.get("textLength"):
            to_left, x = element.get("direction") == "rtl", float(element.get("x", 0))
            left = x - float(length) if to_left else x
            text = (element.text or "")[:: -1 if to_left else 1]
            lines.setdefault(float(element.get("y", 0)), []).append((left, left + float(length), text))
    found = []
    for _, pieces in sorted(lines.items()):
        pieces.sort()
        for (_, right, _), (left, _, _) in pairwise(pieces):
            assert right == pytest.approx(left, abs=0.11), "pieces stand side by side"
        found.append((pieces[-1][1], "".join(text for _, _, text in pieces)))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a film", ["a film"]),
        ("אב גד, a very good film 10/10", ["a very good film 10/10 ,דג בא"]),
        ("see אב גד 12!", ["see 12 דג בא!"]),
        ("جدا 7.5", ["7.5 ادج"]),
        ("אב (גד)\nfilm אב", [")דג( בא", "film בא"]),
        ("אב film!", ["!film בא"]),
        ("film!\u200f אב", ["filmבא \u200f!"]),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_a_picture_stand_as_a_line_is_read(text: str, expected: list[str], seed: int) -> None:
    draw = np.random.default_rng(seed)
    svg = read_svg(drawn(text, draw.random(len(spans_of(text))).round(1).tolist()))
    assert [line for _, line in seen_from_left(svg)] == expected


def test_lines_of_a_paragraph_run_in_its_direction() -> None:
    text = "אב גד " + "a very good film " * 8 + "אב"
    (end, first), (other_end, second) = seen_from_left(read_svg(drawn(text, [0.0] * len(spans_of(text)))))
    assert first.endswith("good film a very דג בא")
    assert second.startswith("בא good film a very good film")
    assert end == other_end, "both begin at the right edge"


@pytest.mark.parametrize("text", [text for text in HARD_TEXTS if text], ids=range(len(HARD_TEXTS) - 1))
def test_hard_texts_steer_neither_terminals_nor_pages(text: str) -> None:
    read = drawn(text, [(i % 3) / 2 for i in range(len(spans_of(text)))])
    for width in (20, 80):
        for coloured in (True, False):
            letters = read_text(read, width, coloured).plain
            assert not set(letters) & set("\x00\x07\x1b\x9b\r\u2028\u202e\u202c\ufeff")
    page = RunningText(page_html(read))
    assert page.tags <= {"html", "meta", "title", "style", "div", "span", "u", "i"}
    assert 'dir="auto"' in read_html(read)
    assert ElementTree.fromstring(read_svg(read)).find(f"{SVG}title") is not None


def test_letters_and_their_marks_stay_together() -> None:
    text = "e\u0301" * 30 + " 👨‍👩‍👧" * 9
    for line in (line for _, line in lines_of(drawn(text, [0.0] * len(spans_of(text))), 20, coloured=True)):
        assert not line.startswith(("\u0301", "\u200d"))
        assert not line.rstrip().endswith("\u200d")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    return write_texts(folder / "texts.parquet", [Text(t) for t in HARD_TEXTS], one_label(len(HARD_TEXTS)))


def test_rows_are_drawn_with_the_segments_of_the_file(masks: Path) -> None:
    opened = open_masks(masks)
    assert opened.kind is TEXTS
    ((rows, bases),) = with_bases(opened)
    for i, row in enumerate(pq.read_table(masks).to_pylist()):
        read = drawn_read(rows, i, bases.of(i), opened.ranks, kind=opened.kind)
        assert read.bases == row["sequence"] == HARD_TEXTS[i]
        assert read.segments() == [(s["start"], s["end"]) for s in row["segments"] or ()]
        tokens = [(token.start, token.end) for token in read.tokens()]
        assert tokens == list(zip(row["token_start"] or (), row["token_end"] or (), strict=True))
        assert tokens == [tuple(span) for span in spans_of(HARD_TEXTS[i]).tolist()]


def test_a_file_whose_footer_is_lost_is_known_by_its_letters(tmp_path: Path) -> None:
    for text, kind in (("so so", "text"), ("MKVLAAG", "proteins"), ("ACGTN", "reads")):
        path = write_texts(tmp_path / f"{kind}.parquet", [Text(text)], one_label(1), kind=None)
        assert open_masks(path).kind.name == kind
    path = write_texts(tmp_path / "odd.parquet", [Text("a")], one_label(1), kind="images")
    with pytest.raises(InputError, match="footer wyr, input: got images, expected one of reads, proteins, text"):
        open_masks(path)


def overlap(row: dict[str, Any]) -> None:
    row["token_end"][0] = row["token_start"][1] + 1


def beyond(row: dict[str, Any]) -> None:
    row["token_end"][-1] = row["length"] + 1


def backwards(row: dict[str, Any]) -> None:
    row["token_end"][0] = row["token_start"][0] - 1


def too_few(row: dict[str, Any]) -> None:
    del row["token_end"][-1]


def within_a_token(row: dict[str, Any]) -> None:
    row["segments"] = [{"start": 3, "end": 5, "mean": 0.5}]


def shorter(row: dict[str, Any]) -> None:
    row["sequence"] = row["sequence"][:-1]


@pytest.mark.parametrize("spoil", [overlap, beyond, backwards, too_few, within_a_token, shorter])
def test_columns_that_do_not_fit_are_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_texts(tmp_path / "odd.parquet", [Text("some good words")], one_label(1))
    table = pq.read_table(path)
    (row,) = table.to_pylist()
    spoil(row)
    pq.write_table(pa.Table.from_pylist([row], table.schema), path)
    assert main(["view", str(path)]) == 1
    assert re.match(r"wyr-batch: row 1, (text '1'|column \w+): got ", capsys.readouterr().err)


def test_view_shows_texts_and_few_of_many_labels(
    masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(masks), "5", "--width", "60"]) == 0
    out = capsys.readouterr().out
    assert "\n 1 " in out
    assert "שלום עולם" in re.sub(r"[\[\]]", "", out)
    page = tmp_path / "text.html"
    assert main(["view", str(masks), "8", "--html", str(page)]) == 0
    assert RunningText(page.read_text()).text == HARD_TEXTS[7]
    names = ["joy", "anger", "fear", "love"]
    calls: dict[str, Any] = many_labels(1, names)
    calls = {name: [("no", 0.9 - i / 10, "no", 0.9)] for i, name in enumerate(names)} | {
        "joy": [("yes", 0.8, "no", 0.6)]
    }
    path = write_texts(tmp_path / "many.parquet", [Text("so it goes")], calls)
    assert main(["view", str(path)]) == 0
    assert re.findall(r"^(\w+)  .*(?:kept|lost)$", capsys.readouterr().out, re.M) == ["joy"]
    path = write_texts(tmp_path / "none.parquet", [Text("so it goes")], calls | {"joy": [("no", 0.95, "no", 0.6)]})
    assert main(["view", str(path)]) == 0
    shown_labels = re.findall(r"^(\w+) +no", capsys.readouterr().out, re.M)
    assert shown_labels == ["love", "fear", "anger"], "the nearest to yes"


def test_a_rank_of_its_own_has_segments_of_words_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_texts(tmp_path / "ranks.parquet", [Text("unbelievable nonsense", [0.0] * 5)], one_label(1))
    table = pq.read_table(path)
    own = pa.array([[0.9, 0.9, 0.1, 0.0, 0.0]], pa.list_(pa.float32()))
    pq.write_table(table.append_column("mask_label", own), path)
    assert main(["view", str(path), "--rank", "label"]) == 0
    assert "1 [unbelievable] nonsense" in capsys.readouterr().out


def test_texts_without_their_letters_are_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_texts(tmp_path / "bare.parquet", [Text("a bit long")], one_label(1), sequences=False)
    assert main(["view", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err.endswith("Drawn without text.\n")
    assert re.search(r"^ 1 [▁▂▃▄▅▆▇█]{3}$", out, re.M)


def test_proteins_are_drawn_as_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_texts(
        tmp_path / "p.parquet", [Text("MKVLAAGIVG", [1.0, 0.0])], one_label(1, ("a", "b")), kind="proteins", unit="aa"
    )
    assert open_masks(path).kind is PROTEINS
    assert main(["view", str(path)]) == 0
    out = capsys.readouterr().out
    assert "1  10 aa, 2 tokens" in out
    assert " 1 [MKVLA]AGIVG" in out


def test_predictions_of_texts_have_words() -> None:
    text = "unbelievable film"
    spans = spans_of(text)
    mask = np.array([1, 0.9, 0.2, 0.1], np.float32)
    read = Prediction(
        status="ok",
        reason=None,
        mask=mask,
        token_start=spans[:, 0],
        rank_masks=mask[None],
        labels=("bad",),
        masked_labels=("bad",),
        probs=np.array([0.25, 0.75], np.float32),
        masked_probs=np.array([0.3, 0.7], np.float32),
        read_id="1",
        sequence=text,
        ranks=(Rank("label", ("good", "bad")),),
        token_end=spans[:, 1],
        words=word_numbers(text, spans[:, 0], spans[:, 1]),
        kind=TEXTS,
    )
    (segment,) = read.segments
    assert (segment.start, segment.end, segment.mean) == (0, 12, pytest.approx(0.7))
    assert repr(read) == "<Prediction 1: ok, label bad 0.75, mask mean 0.55, 17 characters, 4 tokens>"
    assert RunningText(read._repr_html_()).kept == "unbelievable"
    assert "[unbelievable] film" in read_text(read.drawn(), 60, coloured=False).plain
