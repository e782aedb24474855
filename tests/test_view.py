"""Reads drawn as HTML, as SVG and in a terminal, and `wyr-batch view`."""

from __future__ import annotations

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import WYR_BATCH, finished
from hypothesis import given
from hypothesis import strategies as st
from toy_engine import ToyEngine

from wyr_batch.api import run
from wyr_batch.cli import main
from wyr_batch.draw.html import page_html, read_html
from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.draw.svg import read_svg
from wyr_batch.draw.terminal import read_text
from wyr_batch.job.config import RunConfig
from wyr_batch.masks.file import open_masks
from wyr_batch.masks.find import drawn_reads, find_rows

SVG = "{http://www.w3.org/2000/svg}"
ESCAPES = re.compile(r"\x1b\[[\d;]*m")


def drawn(bases: str, values: list[float], starts: list[int], **other: object) -> DrawnRead:
    calls = (Call("kingdom", "Animal", 0.9, "Animal", 0.75), Call("family", "a<b>", 0.5, "c", 0.4))
    fields = {"read_id": "r&1", "mate": 0, "length": len(bases), "status": "ok", "calls": calls, **other}
    return DrawnRead(bases=bases, values=np.array(values, np.float32), starts=np.array(starts, np.int32), **fields)  # type: ignore[arg-type]


SMALL = drawn("ACGTTGACAACG" * 2 + "NN", [0.0, 1.0, 0.6, 0.2, 0.5, 0.49], [0, 6, 12, 18, 24, 25])


@st.composite
def reads(draw: st.DrawFn) -> DrawnRead:
    """Return any read with a mask; white space may stand before its first token."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=60))
    starts = np.cumsum([draw(st.integers(0, 2)), *sizes])
    bases = draw(st.text("ACGTN", min_size=int(starts[-1]), max_size=int(starts[-1])))
    values = st.sampled_from([0.0, 0.2, 0.49, 0.5, 0.51, 0.9, 1.0])
    return drawn(bases, draw(st.lists(values, min_size=len(sizes), max_size=len(sizes))), starts[:-1].tolist())


def base_lines(read: DrawnRead, width: int, coloured: bool = False) -> list[str]:
    """Return the lines of the bases, without those above."""
    lines = read_text(read, width, coloured).plain.splitlines()
    return [line for line in lines if re.fullmatch(r" *\d+ [ACGTN\[\] ]+", line)]


def test_plain_text_to_the_letter() -> None:
    assert read_text(SMALL, 64, coloured=False).plain == (
        "r&1  26 bp, 6 tokens, mask mean 0.47\n"
        "kingdom  Animal 0.90  → Animal 0.75  ✓ kept\n"
        "family   a<b> 0.50    → c 0.40       ✗ lost\n"
        " 1 ACGTTG[ACAA CGACGTTG]AC AACG[N]N"
    )
    assert read_text(SMALL, 22, coloured=False).plain.splitlines()[-3:] == [
        " 1 ACGTTG[ACAA]",
        "11 [CGACGTTG]AC",
        "21 AACG[N]N",
    ]


@given(reads(), st.integers(20, 130))
def test_plain_text_gives_back_bases_and_segments(read: DrawnRead, width: int) -> None:
    lines = base_lines(read, width)
    bare = [re.sub(r"^ *\d+ |[ \[\]]", "", line) for line in lines]
    assert "".join(bare) == read.bases
    ends = np.cumsum([0, *map(len, bare)])
    assert [int(line.split()[0]) - 1 for line in lines] == ends[:-1].tolist()
    assert all(len(line) <= max(width, 30) for line in lines)
    marked = "".join(line[line.index(" ", len(line) - len(line.lstrip())) :] for line in lines)
    marked = marked.replace(" ", "").replace("][", "")
    pieces = re.split(r"[\[\]]", marked)
    bounds = np.cumsum([0, *map(len, pieces)])
    assert [(int(a), int(b)) for a, b in zip(bounds[1::2], bounds[2::2], strict=False)] == read.segments()


@given(reads(), st.integers(20, 130))
def test_coloured_text_shows_the_same_bases_and_underlines_segments(read: DrawnRead, width: int) -> None:
    text = read_text(read, width, coloured=True)
    lines = base_lines(read, width, coloured=True)
    assert "".join(re.sub(r"^ *\d+ | ", "", line) for line in lines) == read.bases
    underlined = sum(len(text.plain[s.start : s.end]) for s in text.spans if getattr(s.style, "underline", False))
    assert underlined == sum(end - start for start, end in read.segments())


class BasesOf(HTMLParser):
    """Letters in the blocks of a drawn read, those of segments, and the tags of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.letters, self.kept, self.tags, self.open = "", "", set[str](), list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(dict(attrs).get("class") or tag)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "wyr-block" in self.open:
            self.letters += data
            level = self.open[-1].removeprefix("wyr-")
            self.kept += data if level.isdigit() and int(level) >= 8 else ""


@given(reads())
def test_html_and_svg_show_every_base(read: DrawnRead) -> None:
    found = BasesOf(read_html(read))
    assert found.letters == read.bases
    assert found.kept == "".join(read.bases[start:end] for start, end in read.segments())
    blocks = [text for text in ElementTree.fromstring(read_svg(read)).iter(f"{SVG}text") if text.get("textLength")]
    assert "".join(text.text or "" for text in blocks) == read.bases


def test_what_comes_from_files_is_escaped_everywhere() -> None:
    evil = '<script>alert("1")</script>\x1b[31m\x00\udcff'
    calls = (Call(evil, evil, 0.5, evil, 0.5),)
    for bases in ("<b>&\x1b]'", ""):
        read = drawn(bases, [1.0], [0], read_id=evil, status=evil, rank=evil, calls=calls, length=7)
        found = BasesOf(read_html(read))
        assert found.tags <= {"div", "span", "i", "u", "svg", "rect"}
        assert "<script" not in page_html(read)
        assert "\x1b" not in read_text(read, 80, False).plain
        for page in (read_html(read), read_svg(read)):
            page.encode()
            assert not set(page) & set("\x1b\x00")
        assert ElementTree.fromstring(read_svg(read)).find(f"{SVG}title") is not None
    assert BasesOf(read_html(drawn("<b>&\x1b]'", [1.0], [0]))).letters == "<b>&?]'"


def test_a_read_without_bases_is_drawn_as_bars() -> None:
    read = drawn("", [0.0, 1.0, 0.6, 0.2, 0.5, 0.49], [0, 6, 12, 18, 24, 25], length=26)
    assert read_text(read, 60, False).plain.splitlines()[-1] == " 1 ▁█▅▂▅▄"
    bars = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", re.sub(r"=(wyr-\w+)", r'="\1"', read_html(read)))[0])
    heights = [(rect.get("x"), rect.get("height")) for rect in bars if (rect.get("class") or "") != "wyr-line"]
    assert heights == [("0", "1"), ("6", "16"), ("12", "10"), ("18", "4"), ("24", "9"), ("25", "8")]
    kinds = [(rect.get("class"), rect.get("height")) for rect in ElementTree.fromstring(read_svg(read))]
    assert kinds.count(("line", "2.0")) == 1 + len(read.segments()), "the legend has one as well"


def test_a_read_without_a_mask_is_drawn_bare() -> None:
    calls = (Call("kingdom", None, None, None, None),)
    read = drawn("ACGT", [], [], status="too_short", calls=calls)
    assert read_text(read, 60, False).plain == "r&1  too short, 4 bp\nkingdom\n1 ACGT"
    assert BasesOf(read_html(read)).letters == "ACGT"
    assert read_text(drawn("", [], [], status="empty", calls=calls), 60, False).plain == "r&1  empty, 0 bp\nkingdom"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pairs of reads and their masks."""
    made = tmp_path_factory.mktemp("view")
    for mate in (1, 2):
        name = f"/{mate}" if mate == 1 else ""  # a name may have the mate's number in it
        records = (f">p{i}{name}\n{'ACGTTGACAACG' * (i % 7 + 1)}{'ACGT'[mate]}\n" for i in range(60))
        (made / f"mates_{mate}.fa").write_text("".join(records))
    inputs = (str(made / "mates_1.fa"), str(made / "mates_2.fa"))
    run(RunConfig(inputs, made / "masks.parquet", paired=True, rank_masks=True), engines=[ToyEngine()])
    return made


def test_rows_are_found_by_name_in_any_row_group_and_part(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "masks.parquet")
    for i, part in enumerate((table.slice(0, 50), table.slice(50))):
        pq.write_table(part, tmp_path / f"part-{i:06d}.parquet", row_group_size=7)
    for path in (folder / "masks.parquet", tmp_path):
        masks = open_masks(path)
        assert find_rows(masks, ["p55", "p3", "gone"]) == ([6, 7, 110, 111], ["gone"])
        assert find_rows(masks, ["p24/2", "p25/1", "p25/3"]) == ([49, 50], ["p25/3"])
        numbers = [0, 6, 7, 48, 49, 50, 63, 119]
        found = list(drawn_reads(masks, numbers, without_bases=lambda error: None))
        assert [read.title for read in found] == [f"p{i // 2}/{i % 2 + 1}" for i in numbers]
        for read, row in zip(found, table.take(pa.array(numbers)).to_pylist(), strict=True):
            assert len(read.values) == row["n_tokens"]
            assert read.segments() == [(s["start"], s["end"]) for s in row["segments"]]


def test_view_shows_first_rows_or_those_that_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = str(folder / "masks.parquet")
    assert main(["view", masks, "-n", "3"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^p\S+", shown, re.M) == ["p0/1", "p0/2", "p1/1"]
    assert re.sub(r"[ \[\]]", "", shown.splitlines()[3]) == "1ACGTTGACAACGC"
    assert main(["view", masks, "p7", "nope", "p2/2"]) == 1
    out, err = capsys.readouterr()
    assert re.findall(r"^p\S+", out, re.M) == ["p2/2", "p7/1", "p7/2"]
    assert "got no read nope, expected names of its 120 rows" in err
    assert main(["view", masks, "p7/1", "--rank", "family"]) == 0
    assert "mask of family mean" in capsys.readouterr().out
    assert main(["view", masks, "--rank", "genus"]) == 2
    assert "--rank: got genus, expected one of kingdom, family" in capsys.readouterr().err


def test_view_writes_one_read(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks, html, svg = str(folder / "masks.parquet"), tmp_path / "read.html", tmp_path / "read.svg"
    words = ["--html", str(html), "--svg", str(svg)]
    assert main(["view", masks, "p7", *words]) == 2
    assert "--html: got 2 rows to draw, expected one. Name one READ_ID; of mates, READ_ID/1" in capsys.readouterr().err
    assert main(["view", masks, "p7/1", "nope", *words]) == 1
    assert not html.exists()
    assert main(["view", masks, "p7/1", *words]) == 0
    assert capsys.readouterr().out == ""
    assert BasesOf(html.read_text()).letters == "ACGTTGACAACGC"
    assert ElementTree.fromstring(svg.read_text()).findtext(f"{SVG}title") == "p7/1"
    assert main(["view", masks, "p7/2", *words]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["view", masks, "p7/2", *words, "--overwrite"]) == 0
    reads = folder / "mates_1.fa"
    for taken in (masks, str(reads)):
        assert main(["view", masks, "p7/2", "--svg", taken, "--overwrite"]) == 2
        assert "an output never replaces what is read" in capsys.readouterr().err
    assert reads.read_text().startswith(">p0/1\n")


def test_view_without_the_reads_says_so_once_and_draws_bars(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, reads = tmp_path / "masks.parquet", tmp_path / "reads.fa"
    reads.write_text((folder / "mates_1.fa").read_text())
    run(RunConfig((str(reads),), masks), engines=[ToyEngine()])
    moved = reads.rename(tmp_path / "moved.fa")
    assert main(["view", str(masks), "-n", "4"]) == 0
    out, err = capsys.readouterr()
    assert (len(re.findall("[▁▂▃▄▅▆▇█]", out)), "ACG" in out) == (3 + 5 + 7 + 9, False)
    assert err.count("reads.fa among its inputs") == err.count("Drawn without bases.") == 1
    assert main(["view", str(masks), "-n", "4", "--reads", str(moved)]) == 0
    assert "ACGTTG" in re.sub(r"[ \[\]]", "", capsys.readouterr().out)
    reads.write_text(moved.read_text().replace(">p2/", ">x2/"))
    assert main(["view", str(masks), "-n", "4"]) == 0
    out, err = capsys.readouterr()
    assert re.sub(r"[ \[\]]", "", out).count("ACGTTGACAACG") == 0, "one read is not that of its row: none is shown"
    assert err.count("Drawn without bases.") == 1
    assert main(["view", str(masks), "-n", "4", "--reads", str(reads)]) == 1
    assert "read 'x2/1', record 3: got" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mask", "token_start"])
@pytest.mark.parametrize("value", [[0.5], [2.0] * 3, [float("nan")] * 3, [-6, 0, 6], [12, 6, 0]], ids=str)
def test_rows_whose_columns_do_not_fit_together_are_refused(
    folder: Path, tmp_path: Path, name: str, value: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(folder / "masks.parquet").slice(0, 1)
    i, kind = table.schema.get_field_index(name), table.schema.field(name).type
    if name == "token_start" and any(number != number or number % 1 for number in value):
        value = [0, 6]
    pq.write_table(table.set_column(i, name, pa.array([value], kind)), tmp_path / "odd.parquet")
    assert main(["view", str(tmp_path / "odd.parquet")]) == 1
    assert "row 1, read 'p0/1': got " in capsys.readouterr().err


def in_a_terminal(words: list[str], **variables: str) -> str:
    """Return what a command shows in a terminal of 80 columns."""
    outer, inner = os.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LESS")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "80", "PAGER": "cat", **variables}
    with subprocess.Popen(words, stdin=inner, stdout=inner, stderr=subprocess.STDOUT, env=env) as process:
        os.close(inner)
        shown = b""
        try:
            while block := os.read(outer, 4096):
                shown += block
        except OSError:  # the command has closed the terminal
            pass
    os.close(outer)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n").rstrip("\n")


def test_colours_are_for_terminals_that_want_them(folder: Path) -> None:
    words = [*WYR_BATCH, "view", str(folder / "masks.parquet"), "p7/1"]
    coloured = in_a_terminal(words)
    assert "ACGTTGACAACGC" in re.sub(r" ", "", ESCAPES.sub("", coloured))
    assert ESCAPES.search(coloured)
    plain = finished(words).stdout.rstrip("\n")
    assert not ESCAPES.search(plain)
    assert in_a_terminal(words, NO_COLOR="1") == in_a_terminal([*words, "--color", "never"]) == plain
    assert ESCAPES.search(finished([*words, "--color", "always"]).stdout)
    simple = finished(words, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert simple.stdout.splitlines()[-1] == plain.splitlines()[-1]
