"""Runs over texts and proteins with a stand-in engine: rows, resume, units of a cluster, and texts found again."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from text_files import PAIRS, SAVED, expected, of_chunks, with_csv, with_json
from toy_engine import ToyEngine

from wyr_batch import api
from wyr_batch.cluster import units
from wyr_batch.draw.kinds import PROTEINS, READS, TEXTS, Kind
from wyr_batch.errors import InputError, UsageError, WyrError
from wyr_batch.job import progress
from wyr_batch.job.config import RunConfig
from wyr_batch.job.job import Job
from wyr_batch.job.stats import RunStats, amount_of
from wyr_batch.masks.bases import bases_of, with_bases
from wyr_batch.masks.file import open_masks
from wyr_batch.reads.stream import InputWatch, read_new
from wyr_batch.rows.counts import Counts
from wyr_batch.rows.manifest import describe_input
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.open import Texts, opener

COLUMNS = {"text_column": "sentence1", "pair_column": "sentence2", "id_column": "idx"}
ROWS = expected(PAIRS)
LETTERS = [text if second is None else f"{text}\n{second}" for _, text, second in ROWS]


def engine_for(kind: str) -> ToyEngine:
    engine = ToyEngine()
    object.__setattr__(engine.bundle, "input", kind)
    return engine


def run_on(config: RunConfig, kind: str = "text") -> RunStats:
    return api.run(config, engines=[engine_for(kind)])


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[str, str, str]:
    """The same rows three times."""
    with_json(tmp_path / "a.jsonl", PAIRS)
    with_csv(tmp_path / "b.csv", PAIRS)
    shutil.copytree(SAVED, tmp_path / "saved")
    return str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv"), str(tmp_path / "saved")


def test_every_text_is_a_row_that_finds_its_text_again(inputs: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "masks.parquet"
    stats = run_on(RunConfig((inputs[0], inputs[2]), output, **COLUMNS))
    table = pq.read_table(output)
    assert table["read_id"].to_pylist() == [name for name, _, _ in ROWS] * 2
    assert table["length"].to_pylist() == [len(text) for text in LETTERS] * 2
    assert [status == "empty" for status in table["status"].to_pylist()] == [not text for text in LETTERS] * 2
    assert set(table["file"].to_pylist()) == {inputs[0], inputs[2]}
    assert stats.n_reads == 2 * len(ROWS)
    masks = open_masks(output)
    assert masks.footer["input"] == "text"
    assert {name: masks.run["options"][name] for name in COLUMNS} == COLUMNS
    assert [bases.of(i) for rows, bases in with_bases(masks) for i in range(len(rows))] == LETTERS * 2
    assert bases_of(masks, {2}, [inputs[2], inputs[0]]) == {2: LETTERS[2]}
    other = tmp_path / "other.jsonl"
    with_json(other, [*PAIRS[:2], ("other", None), *PAIRS[3:]])
    with pytest.raises(
        InputError, match="got mate 0 of 5 characters, expected '12', mate 0 of 14 characters, as in row"
    ):
        bases_of(masks, {2}, [str(other), inputs[0]])
    with pytest.raises(InputError, match="got masks of texts, expected masks of reads, which have qualities"):
        next(with_bases(masks, qualities=True))


def test_a_run_of_texts_is_resumed_after_damage(tmp_path: Path) -> None:
    rows = [f"text number {i}" for i in range(3000)]
    source, output, whole = tmp_path / "a.jsonl", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    with_json(source, [(row, None) for row in rows])
    config = {"text_column": "sentence1", "part_s": 0}
    run_on(RunConfig((str(source),), whole, **config))
    good = source.read_bytes()
    at = good.index(b"number 2345")
    source.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
    with pytest.raises(InputError, match=r"a\.jsonl, line 2346: got byte 0xff"):
        run_on(RunConfig((str(source),), output, **config))
    source.write_bytes(good)
    with pytest.raises(UsageError, match="text_column: was sentence1, is sentence2"):
        run_on(RunConfig((str(source),), output, resume=True, text_column="sentence2", part_s=0))
    assert run_on(RunConfig((str(source),), output, resume=True, **config)).n_resumed == 2345
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_texts_reach_workers_as_they_are_read_here(inputs: tuple[str, ...], tmp_path: Path) -> None:
    config = RunConfig(inputs, tmp_path / "masks.parquet", max_reads=20, **COLUMNS)
    job = Job(config, engine_for("text").bundle)
    reading = units.Reading(config, str(tmp_path), unit_reads=6, kind=job.kind)
    found = [units.unit_from_table(row) for row in units.read_units(reading)]
    assert len(found) == 3
    here = list(read_new(job.reading, InputWatch(3)))
    assert of_chunks(chunk for unit in found for chunk in unit.chunks) == of_chunks(chunk for chunk, _ in here)
    assert found[-1].digest == here[-1][1]
    later = units.Reading(config, str(tmp_path), 1, 8, found[0].digest, kind=job.kind)
    (rest,) = (units.unit_from_table(row) for row in units.read_units(later))
    assert rest.digest == found[-1].digest
    assert rest.n_reads == 12


def test_options_are_for_the_kind_of_input_that_a_model_takes(inputs: tuple[str, ...], tmp_path: Path) -> None:
    def refused(kind: str, error: type[WyrError], message: str, **options: object) -> None:
        config = RunConfig(inputs[:2], tmp_path / "masks.parquet", **options)  # type: ignore[arg-type]
        with pytest.raises(error, match=message):
            run_on(config, kind)

    for name in COLUMNS:
        flag = f"--{name.replace('_', '-')}"
        for kind in ("reads", "proteins"):
            refused(kind, UsageError, f"{flag}: got a model of {kind}, expected one of texts", **{name: "a"})
    refused("text", UsageError, "--paired: got a model of texts, expected one of reads", paired=True)
    refused("text", UsageError, "--interleaved: got a model of texts", interleaved=True)
    refused("text", InputError, "no column 'none', expected one of 'idx', 'sentence1'", text_column="none")
    refused("reads", InputError, "a.jsonl: got text starting with '{", min_length=1)
    with pytest.raises(UsageError, match=r"got a path in the input .*saved"):
        run_on(RunConfig((inputs[2],), tmp_path / "saved" / "masks.parquet", **COLUMNS))
    assert not (tmp_path / "masks.parquet").exists()


def test_splits_of_a_folder_are_named_one_by_one(inputs: tuple[str, ...], tmp_path: Path) -> None:
    folder, output = tmp_path / "reviews", tmp_path / "masks.parquet"
    for name in ("train", "test"):
        shutil.copytree(inputs[2], folder / name)
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"reviews: got a folder of the data sets 'test', 'train', expected one of"):
        run_on(RunConfig((str(folder),), output, **COLUMNS))
    assert set(tmp_path.iterdir()) == before
    run_on(RunConfig((str(folder / "test"), str(folder / "train")), output, **COLUMNS))
    files = [str(folder / name) for name in ("test", "train") for _ in ROWS]
    assert pq.read_table(output)["file"].to_pylist() == files


def test_a_folder_is_known_by_what_is_in_it(inputs: tuple[str, ...]) -> None:
    known = describe_input(inputs[2])
    assert known == describe_input(inputs[2])
    shard = Path(inputs[2]) / "data-00001-of-00002.arrow"
    assert known["bytes"] == sum(file.stat().st_size for file in shard.parent.iterdir())
    shard.write_bytes(shard.read_bytes().replace(b"plain", b"other").replace(b"spaces", b"traces"))
    assert known != describe_input(inputs[2])


def test_letters_of_proteins_are_nothing_to_warn_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "a.fasta"
    source.write_text(">p1 a protein\nMEEPQSDPSVEPPLSQETFS\nDLWKLLPENNVL\n>p2\nMKV*\n")
    with caplog.at_level(logging.WARNING):
        run_on(RunConfig((str(source),), tmp_path / "masks.parquet"), "proteins")
        assert not caplog.text
        assert pq.read_table(tmp_path / "masks.parquet")["length"].to_pylist() == [32, 4]
        assert open_masks(tmp_path / "masks.parquet").footer["input"] == "proteins"
        run_on(RunConfig((str(source),), tmp_path / "as_reads.parquet"), "reads")
        assert "which proteins have and nucleotides have not" in caplog.text
        assert open_masks(tmp_path / "as_reads.parquet").footer["input"] == "reads"


@pytest.mark.parametrize(
    ("kind", "rows", "content", "rate"),
    [
        ("text", "texts", r"[\d,]+ tokens", r"[\d,.]+( million)? tokens/s"),
        ("proteins", "proteins", r"36 residues", r"[\d,.]+( million)? residues/s"),
        ("reads", "reads", r"0\.00 Mbases", r"[\d.]+ Mbases/s"),
    ],
)
def test_lines_say_what_the_inputs_are(
    kind: str,
    rows: str,
    content: str,
    rate: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    caplog.set_level(logging.INFO, "wyr_batch")
    source = tmp_path / "a.txt"
    source.write_text(">p1\nMEEPQSDPSVEPPLSQETFSDLWKLLPENNVL\n>p2\nMKVL\n")
    config = RunConfig((str(source),), tmp_path / "masks.parquet", part_s=0)
    stats = api.run(config, engines=[engine_for(kind)], progress=True)
    n = 4 if kind == "text" else 2
    assert any(re.match(rf"{n} {rows}, [\d,]+ {rows}/s, {rate}", line) for line in caplog.messages), caplog.messages
    closing = stats.closing_line()
    assert re.match(rf"{n} {rows} \({content}\) in [\d.]+ s: [\d,]+ {rows}/s, [\d,]+ tokens/s, ", closing)


def test_what_ends_a_run_of_texts_speaks_of_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")
    source = tmp_path / "a.jsonl"
    with_json(source, [(f"text number {i}", None) for i in range(3000)])
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join([*lines[:2500], b"{broken\n", *lines[2500:]]))
    config = {"text_column": "sentence1", "part_s": 0}
    with pytest.raises(InputError):
        run_on(RunConfig((str(source),), tmp_path / "masks.parquet", **config))
    assert "2,500 texts are finished and kept" in caplog.text
    source.write_bytes(b"".join(lines))
    run_on(RunConfig((str(source),), tmp_path / "masks.parquet", resume=True, **config))
    assert "2,500 texts are finished; going on after them" in caplog.text


@pytest.mark.parametrize(
    ("kind", "counts", "said"),
    [
        (TEXTS, Counts(n_bases=9, n_tokens=999), "999 tokens"),
        (TEXTS, Counts(n_bases=9, n_tokens=1_000_000), "1.00 million tokens"),
        (PROTEINS, Counts(n_bases=12_345, n_tokens=9), "12,345 residues"),
        (PROTEINS, Counts(n_bases=1_234_567_890, n_tokens=9), "1,234.57 million residues"),
        (READS, Counts(n_bases=250_000, n_tokens=9), "0.25 Mbases"),
    ],
)
def test_amounts_in_words(kind: Kind, counts: Counts, said: str) -> None:
    assert amount_of(kind, counts) == said


def test_the_share_read_goes_from_nothing_to_all(inputs: tuple[str, ...]) -> None:
    columns = TextColumns(*COLUMNS.values())
    watch = InputWatch(3)
    open_input = opener("text", columns)
    assert open_input is not None
    shares = []
    for path in inputs:
        with Texts(path, columns, chunk_reads=2) as texts:
            watch.now_reading([texts])
            shares += [watch.share for _ in texts]
    assert all(share is not None for share in shares)
    assert (np.diff([share or 0.0 for share in shares]) >= 0).all()
    assert (shares[0] or 0.0) < 0.34
    assert 0.9 < (shares[-1] or 0.0) <= 1.0
