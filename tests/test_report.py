"""The report: its numbers against a recount, its page from the JSON alone, and files that are not as usual."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import RANKS, ToyEngine

from wyr_batch import RunConfig, api
from wyr_batch.cli import main
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.masks.file import MaskFile, open_masks
from wyr_batch.masks.rows import MaskRows
from wyr_batch.report.counting.picks import Picker
from wyr_batch.report.counting.tally import Tally
from wyr_batch.report.data import gather
from wyr_batch.report.page import page

Change = Callable[[pa.Table], pa.Table]
NAMES = [rank.name for rank in RANKS]
VOID = ("meta", "input", "br")


class FailingEngine(ToyEngine):
    """Fails on reads that hold the token AAAAAA."""

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        if (input_ids == 6).any():
            raise ValueError("a kernel failed on <b>it</b>")
        return super()._infer(input_ids, explain_ids)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 reads: short, of several windows, with N, empty, and two that fail."""
    draw = random.Random(8)
    lengths = [draw.choice((0, 5, 13, 50, 59, 61, 130, 300)) for _ in range(60)]
    reads = ["".join(draw.choices("ACGTN", (9, 9, 9, 9, 1), k=length)) for length in lengths]
    reads[7] = reads[30] = "AAAAAA"
    path = tmp_path_factory.mktemp("reads") / "reads.fa"
    path.write_text("".join(f">r{i}\n{read}\n" for i, read in enumerate(reads)))
    return path


def made(fasta: Path, name: str = "masks", **options: Any) -> Path:
    """Return a masks file of the reads."""
    output = fasta.with_name(f"{name}.parquet")
    config = RunConfig((str(fasta),), output, overwrite=True, min_length=6, **options)
    api.run(config, engines=[FailingEngine()])
    return output


def changed(path: Path, change: Change, footer: bool = False) -> Path:
    """Return a masks file as another tool would write it."""
    kept = {key: value for key, value in pq.read_metadata(path).metadata.items() if key.startswith(b"wyr")}
    other = path.with_name(f"changed-{path.name}")
    pq.write_table(change(pq.read_table(path)).replace_schema_metadata(kept if footer else None), other)
    return other


def from_json(*paths: Path, **options: Any) -> dict[str, Any]:
    """Return the numbers, as they come back from JSON."""
    data = json.dumps(gather([open_masks(path) for path in paths], **options), allow_nan=False)
    found: dict[str, Any] = json.loads(data)
    return found


class Checked(HTMLParser):
    """Reads a page; raises if elements are not closed in order. Keeps ids, text, and every address in an attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.said = ""
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            self.addresses += [value or ""] if name in ("src", "href", "action", "data", "srcset", "poster") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.said += f" {data}"


@pytest.mark.parametrize("options", [{}, {"mask_dtype": "uint8", "confidence": 0.45}, {"mask_dtype": "float16"}])
def test_numbers_are_those_of_a_recount(fasta: Path, options: dict[str, Any]) -> None:
    path = made(fasta, "-".join(map(str, options.values())) or "plain", **options)
    (found,) = from_json(path)["files"]
    unit = 255.0 if options.get("mask_dtype") == "uint8" else 1.0

    def sql(query: str) -> list[Any]:
        tokens = f"select *, unnest(mask)::float / {unit}::float as m, unnest(range(len(mask))) as place from t"
        parts = "select *, unnest(segments, recursive := true) from (select segments from t)"
        return duckdb.sql(f"with t as (from '{path}'), tokens as ({tokens}), parts as ({parts}) {query}").fetchall()

    assert [found["rows"], found["explained"], found["bases"], found["tokens"]] == list(
        sql("select count(*), count(mask), sum(length), sum(n_tokens) from t")[0]
    )
    assert found["statuses"] == dict(sql("select status, count(*) from t group by 1"))
    assert set(found["statuses"]) == {"ok", "windowed", "too_short", "failed"}
    assert sum(found["failures"].values()) == len(found["failed_ids"]) == 2
    assert found["failed_ids"] == ["r7", "r30"]

    mask = found["mask"]
    ((n, mean, kept),) = sql("select count(*), avg(m), avg((m >= 0.5)::int) from tokens")
    assert mask["tokens"] == n
    assert [mask["mean"], mask["kept_share"]] == pytest.approx([mean, kept], abs=1e-6)
    bins = dict(sql("select least(floor(m * 32), 31)::int, count(*) from tokens group by 1"))
    assert mask["counts"] == [bins.get(i, 0) for i in range(32)]
    by_place = sql("select count(*), avg(m), stddev_pop(m) from tokens group by place order by place")
    for name, column in zip(("reads", "mean", "sd"), zip(*by_place, strict=True), strict=True):
        assert found["positions"][name] == pytest.approx(list(column), abs=2e-6)

    segments = found["segments"]
    ((n, bases),) = sql('select count(*), sum("end" - start) from parts')
    assert segments["total"] == n
    assert segments["bases_share"] == pytest.approx(
        bases / sql("select sum(length) from t where mask is not null")[0][0]
    )
    per_read = dict(sql("select len(segments), count(*) from t where mask is not null group by 1"))
    assert segments["per_read"] == [per_read.get(i, 0) for i in range(max(per_read) + 1)]
    lengths = dict(sql('select ceil(("end" - start) / 6)::int, count(*) from parts group by 1'))
    assert segments["lengths"] == [lengths.get(i + 1, 0) for i in range(max(lengths))]

    for rank in found["ranks"]:
        name = rank["name"]
        calls = sql(f"select {name}, count(*) from t where {name} is not null group by 1 order by 2 desc, 1")
        assert [(call["label"], call["reads"]) for call in rank["calls"]] == calls
        ((called, same, no_call),) = sql(
            f"select count({name}), sum(({name} = {name}_masked)::int), "
            f"sum(({name} is not null and {name}_masked is null)::int) from t"
        )
        assert [rank["called"], rank["kept"], rank["no_masked_call"]] == [called, same, no_call]
        cells = sql(
            f"select floor({name}_prob * 20::float)::int, floor({name}_masked_prob * 20::float)::int, "
            f"coalesce({name} = {name}_masked, false), count(*) from t where {name} is not null group by 1, 2, 3"
        )
        grid = np.zeros((2, 20, 20), int)
        for i, j, kept_call, n in cells:
            grid[int(kept_call), min(i, 19), min(j, 19)] = n
        assert [rank["changed_grid"], rank["kept_grid"]] == grid.tolist()
        assert rank["called_by_prob"] == grid.sum(axis=(0, 2)).tolist()
        assert rank["kept_by_prob"] == grid[1].sum(axis=1).tolist()

    tree = {
        (one["label"], two["label"]): two["reads"] for one in found["lineages"]["children"] for two in one["children"]
    }
    assert tree == {
        (one, two): n
        for one, two, n in sql("select kingdom, family, count(*) from t where mask is not null group by 1, 2")
    }


def test_reads_are_drawn_as_they_are_and_say_why(fasta: Path) -> None:
    path = made(fasta)
    (found,) = from_json(path)["files"]
    rows = pq.read_table(path).to_pylist()
    reads = fasta.read_text().split(">")[1:]
    assert len(found["drawn"]) == 20
    assert found["bases_from"] == {"source": "inputs", "reason": None}
    for read in found["drawn"]:
        row = rows[read["row"]]
        assert (read["read_id"], read["status"], read["length"]) == (row["read_id"], row["status"], row["length"])
        assert read["bases"] == reads[read["row"]].split("\n")[1]
        assert read["values"] == pytest.approx(row["mask"], abs=1e-4)
        assert read["starts"] == row["token_start"]
    why = {reason: [read["row"] for read in found["drawn"] if reason in read["why"]] for reason in ("sure", "windowed")}
    explained = [i for i, row in enumerate(rows) if row["mask"] is not None]
    assert why["sure"] == sorted(explained, key=lambda i: (-rows[i]["family_prob"], i))[:3]
    assert all(rows[i]["status"] == "windowed" for i in why["windowed"])
    for read in found["drawn"]:
        changes = any(rows[read["row"]][name] != rows[read["row"]][f"{name}_masked"] for name in NAMES)
        assert changes or "changed" not in read["why"]


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=12))
def test_counts_do_not_depend_on_how_rows_are_cut(whole: MaskRows, masks: MaskFile, cuts: list[int]) -> None:
    def counted(bounds: list[int]) -> tuple[Any, ...]:
        tally, picker = Tally("x", masks.ranks, [True, True]), Picker(7, masks.ranks, [True, True])
        for start, stop in pairwise(bounds):
            if start < stop:
                tally.add(whole.part(start, stop))
                picker.add(whole.part(start, stop))
        ranks = [rank.as_json() for rank in tally.ranks]
        sums = (tally.n_rows, tally.n_explained, tally.n_bases, tally.n_tokens, tally.shortest_bp, tally.longest_bp)
        return (
            *sums,
            tally.statuses,
            tally.failed_ids,
            ranks,
            tally.lineages.as_json(),
            tally.masks.as_json(),
            tally.masks.positions_as_json(),
            tally.segments.as_json(),
            picker.picked(),
        )

    assert counted(sorted([0, *cuts, len(whole)])) == counted([0, len(whole)])


@pytest.fixture(scope="module")
def masks(fasta: Path) -> MaskFile:
    return open_masks(made(fasta, "cut"))


@pytest.fixture(scope="module")
def whole(masks: MaskFile) -> MaskRows:
    (rows,) = masks.rows()
    return rows


def test_the_page_needs_nothing_else(fasta: Path) -> None:
    data = from_json(made(fasta, "one"), made(fasta, "two", mask_dtype="uint8"))
    text = page(data)
    seen = Checked(text)
    assert all(address.startswith("#") and address[1:] in seen.ids for address in seen.addresses)
    assert not re.search(r"url\(|@import|//", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    for word in ("one.parquet", "two.parquet", "kingdom", "Animal", "toy", "reads.fa", "a kernel failed", "r30"):
        assert word in seen.said, word
    assert len(text) < 1_000_000


def test_texts_of_files_are_escaped(fasta: Path) -> None:
    nasty = "<script>alert(1)</script>&\"'\x1b"
    shown = nasty.replace("\x1b", "\\x1b")

    def rename(table: pa.Table) -> pa.Table:
        rows = table.to_pydict()
        rows["read_id"] = [f"{nasty}{i}" for i in range(table.num_rows)]
        for name in (NAMES[0], f"{NAMES[0]}_masked"):
            rows[name] = [label and nasty for label in rows[name]]
        named = pa.table(rows, table.schema)
        return named.rename_columns([name.replace("family", nasty) for name in table.schema.names])

    path = changed(made(fasta, nasty.replace("/", "")), rename)
    text = page(from_json(path, title=f"{nasty} title"))
    seen = Checked(text)
    assert seen.tags.count("script") == 1
    assert "\x1b" not in text
    assert f"{shown} title" in seen.said
    assert f"{shown}1" in seen.said


def nothing(table: pa.Table) -> pa.Table:
    return table


def all_failed(table: pa.Table) -> pa.Table:
    known = ("read_id", "mate", "length", "n_tokens", "status")
    rows = {name: table[name].to_pylist() if name in known else [None] * table.num_rows for name in table.schema.names}
    return pa.table(rows | {"status": ["failed"] * table.num_rows}, table.schema)


def without(*names: str) -> Change:
    return lambda table: table.drop_columns([name for name in table.schema.names if name.startswith(names)])


def plain_strings(table: pa.Table) -> pa.Table:
    is_coded = [pa.types.is_dictionary(field.type) for field in table.schema]
    fields = [f.with_type(pa.string()) if coded else f for f, coded in zip(table.schema, is_coded, strict=True)]
    return table.cast(pa.schema(fields))


def one_row(table: pa.Table) -> pa.Table:
    return table.slice(0, 1)


MASKED = tuple(f"{name}_masked" for name in NAMES)


@pytest.mark.parametrize(
    ("change", "footer", "said"),
    [
        (nothing, True, "a kernel failed"),
        (nothing, False, "is not in its footer"),
        (lambda table: table.slice(0, 0), True, "0 reads, none of them explained"),
        (lambda table: table.slice(3, 20), True, "Why 1 read failed is not in the footer"),
        (one_row, True, "1 read"),
        (all_failed, True, "none of them explained"),
        (without("family"), False, "kingdom"),
        (without(*MASKED), True, "no calls of masked reads to compare with"),
        (plain_strings, False, "Animal"),
    ],
)
def test_unusual_files_have_a_page(fasta: Path, change: Change, footer: bool, said: str) -> None:
    path = changed(made(fasta), change, footer)
    other = made(fasta, "usual")
    assert said in Checked(page(from_json(path))).said
    Checked(page(from_json(path, other)))
    Checked(page(from_json(other, path)))


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda values: [1.5] * len(values), r"row 2, column mask: got 1.5, expected values from 0 to 1"),
        (lambda values: values[1:], r"row 2: got \d+ mask values and \d+ in token_start, expected as many"),
    ],
)
def test_what_is_no_mask_is_an_error(
    fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoilt: Callable[[Any], Any], said: str
) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = table["mask"].to_pylist()
        values[1] = spoilt(values[1])
        return table.set_column(table.schema.get_field_index("mask"), "mask", pa.array(values, pa.list_(pa.float32())))

    path = changed(made(fasta), spoil)
    assert main(["report", str(path), "-o", str(tmp_path / "x.html")]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "x.html").exists()


def test_bases_that_are_not_to_be_had(fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved, gone = tmp_path / "moved.fa", tmp_path / "gone.fa"
    gone.write_text(fasta.read_text())
    path = made(gone)
    gone.rename(moved)
    (found,) = from_json(path)["files"]
    assert "no file" in found["bases_from"]["reason"]
    assert "drawn without their bases" in Checked(page(from_json(path))).said
    out = tmp_path / "x.html"
    command = ["report", str(path), "-q", "-o", str(out), "--reads"]
    assert main([*command, str(moved)]) == 0
    assert "drawn without" not in out.read_text()
    moved.write_text(moved.read_text().replace(">r0", ">x0"))
    assert main([*command, str(moved), "--overwrite"]) == 1
    assert "read 'x0', record 1: got" in capsys.readouterr().err
    (found,) = from_json(made(fasta, "own", sequences=True), reads=["not looked at"])["files"]
    assert found["bases_from"]["source"] == "sequence"
    assert all(len(read["bases"]) == read["length"] for read in found["drawn"])


def test_command(fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(fasta, "sample A")
    html, numbers, multiqc = tmp_path / "r.html", tmp_path / "r.json", tmp_path / "r_mqc.json"
    words = ["report", str(path), "-o", str(html), "--json", str(numbers), "--multiqc", str(multiqc), "--title", "T"]
    assert main(words) == 0
    assert capsys.readouterr().err.strip() == f"60 reads -> {html}"
    data = json.loads(numbers.read_text())
    assert page(data) == html.read_text()
    assert "<title>T</title>" in html.read_text()
    section = json.loads(multiqc.read_text())
    (row,) = section["data"].values()
    assert set(section["data"]) == {"sample A"}
    assert row.keys() <= section["headers"].keys()
    assert row["kept_family"] == pytest.approx(100 * data["files"][0]["ranks"][1]["kept"] / row_calls(data))

    def refused(*words: str) -> tuple[int, str]:
        return main(["report", *words]), capsys.readouterr().err

    assert refused(*words[1:]) == (
        1,
        f"wyr-batch: -o {html}: got a file that exists, expected a new name. Use --overwrite to replace it.\n",
    )
    assert main([*words, "--overwrite", "-q"]) == 0
    code, said = refused(str(path), "-o", str(path), "--overwrite")
    assert (code, "the masks" in said, pq.read_table(path).num_rows) == (2, True, 60)
    code, said = refused(str(path), "-o", str(fasta), "--overwrite")
    assert (code, "the input" in said) == (2, True)
    code, said = refused(str(path), "-o", str(html), "--overwrite", "--multiqc", str(tmp_path / "mqc.json"))
    assert (code, "expected a name that ends in _mqc.json" in said) == (2, True)
    code, said = refused(*[str(path)] * 9, "-o", str(html), "--overwrite")
    assert (code, "got 9 files, expected 8 at most" in said) == (2, True)


def row_calls(data: dict[str, Any]) -> int:
    called: int = data["files"][0]["ranks"][1]["called"]
    return called


def test_the_footer_has_the_rate_of_the_run(fasta: Path, tmp_path: Path) -> None:
    path = made(fasta, "rated")
    masks = open_masks(path)
    assert masks.rates["reads"] == 60
    assert masks.rates["reads_per_s"] == pytest.approx(60 / masks.rates["seconds"], rel=0.2, abs=100)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", masks.rates["finished_utc"])
    assert " reads/s" in Checked(page(from_json(path))).said
    folder = tmp_path / "parts"
    config = RunConfig((str(fasta),), folder, dataset=True, min_length=6)
    api.run(config, engines=[FailingEngine()])
    assert open_masks(folder).rates["reads"] == 60
    assert from_json(folder)["files"][0]["rows"] == 60
