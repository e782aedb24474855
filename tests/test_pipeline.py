"""The flow around the engine: rows in input order, invariant to company, order and batch size; segments; runners."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_rows import differences
from toy_engine import RANKS, ToyEngine

from wyr_batch.errors import InputError, OutputError
from wyr_batch.pipeline import Explained, ExplainStep, Planner, Work
from wyr_batch.reads import ReadChunk
from wyr_batch.rows import RowBuilder
from wyr_batch.runner import run_overlapped, run_serial
from wyr_batch.segments import find_segments
from wyr_batch.stats import RunStats
from wyr_batch.tokens import tokenise
from wyr_batch.writer import MaskWriter

READS = st.lists(st.text("ACGTACGTACGTN", max_size=200), min_size=1, max_size=8)
PREDICTED = np.full(2, -1, np.int32)


def rows_of(reads: list[str], batch_tokens: int = 64, explain: np.ndarray = PREDICTED, **options: object) -> pa.Table:
    step = ExplainStep(ToyEngine(), explain)
    planner = Planner(window_tokens=10, overlap_tokens=2, batch_tokens=batch_tokens, min_length=3)
    builder = RowBuilder(RANKS, rank_masks=True, **options)  # type: ignore[arg-type]
    return pa.Table.from_batches([builder.build(step(planner.plan(ReadChunk.from_sequences(reads))))])


@settings(max_examples=40, deadline=None)
@given(READS, st.integers(1, 300))
def test_rows_do_not_depend_on_company_order_or_batch_size(reads: list[str], batch_tokens: int) -> None:
    together = rows_of(reads).to_pylist()
    assert [row["length"] for row in together] == [len(read) for read in reads]
    reversed_rows = rows_of(reads[::-1], batch_tokens).to_pylist()[::-1]
    for row, other, read in zip(together, reversed_rows, reads, strict=True):
        alone = rows_of([read], batch_tokens).to_pylist()[0]
        for twin in (other, alone):
            assert not differences(row, twin, 1e-6, ignore=("read_id",))


def test_statuses_and_nulls() -> None:
    rows = rows_of(["ACGTAC", "", "AC", "ACGTAC" * 30, "RYKM"]).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "too_short", "too_short", "windowed", "ok"]
    for row in rows[1:3]:
        assert row["mask"] is None
        assert row["kingdom"] is None
        assert row["family_masked_prob"] is None
    assert rows[4]["token_start"] == [0]
    assert rows[3]["n_tokens"] == 30 == len(rows[3]["mask"])


def test_windowed_read_is_explained_for_one_call() -> None:
    rng = np.random.default_rng(3)
    read = "".join(rng.choice(list("ACGT"), 600))
    engine = ToyEngine()
    planner = Planner(10, 2, 1000)
    work = planner.plan(ReadChunk.from_sequences([read]))
    done = ExplainStep(engine, PREDICTED)(work)
    called = [int(done.probs[0, s].argmax()) for s in (slice(0, 2), slice(2, 5))]
    assert done.explained_ids[0].tolist() == called
    asked = ExplainStep(ToyEngine(), np.array(called, np.int32))(work)
    np.testing.assert_array_equal(done.mask, asked.mask)
    np.testing.assert_array_equal(done.masked_probs, asked.masked_probs)
    assert len(engine.shapes) > len(work.batches), "windows that made another call were run again"


def test_explain_asks_for_one_class_and_leaves_the_call_alone() -> None:
    read = ["ACGTACGGATTACA" * 3]
    plain = rows_of(read).to_pylist()[0]
    other = {0: 1, 1: 0}[("Animal", "Plant").index(plain["kingdom"])]
    asked = rows_of(read, explain=np.array([other, -1], np.int32)).to_pylist()[0]
    assert asked["kingdom"] == plain["kingdom"]
    assert asked["mask_kingdom"] != plain["mask_kingdom"]
    assert asked["mask_family"] == plain["mask_family"]


def test_mask_dtypes_top_k_and_confidence() -> None:
    reads = ["ACGTACGGATTACA" * 3]
    full, half, small = (rows_of(reads, mask_dtype=d).to_pylist()[0]["mask"] for d in ("float32", "float16", "uint8"))
    assert small == [round(255 * value) for value in full]
    assert half == pytest.approx(full, abs=1e-3)
    row = rows_of(reads, top_k=2, confidence=1.0).to_pylist()[0]
    assert row["family"] is None
    assert [pair["prob"] for pair in row["family_top"]] == sorted((p["prob"] for p in row["family_top"]), reverse=True)
    assert row["family_top"][0]["prob"] == row["family_prob"]


@given(READS, st.integers(0, 2**32 - 1))
def test_segments_equal_a_plain_loop(reads: list[str], seed: int) -> None:
    chunk = ReadChunk.from_sequences(reads)
    tokens = tokenise(chunk.bases, chunk.offsets)
    mask = np.random.default_rng(seed).random(len(tokens.ids)).astype(np.float32)
    found = find_segments(mask, tokens, chunk.lengths)
    expected = []
    for i, read in enumerate(reads):
        a, b = tokens.offsets[i], tokens.offsets[i + 1]
        starts = [*tokens.starts[a:b].tolist(), len(read)]
        open_at = None
        for t in range(b - a + 1):
            kept = t < b - a and mask[a + t] >= 0.5
            if kept and open_at is None:
                open_at = t
            if not kept and open_at is not None:
                expected.append((i, starts[open_at], starts[t], float(mask[a + open_at : a + t].mean())))
                open_at = None
    of_read = np.repeat(np.arange(len(reads)), np.diff(found.offsets))
    columns = (of_read, found.start, found.end, found.mean)
    got = list(zip(*(column.tolist() for column in columns), strict=True))
    assert [item[:3] for item in got] == [item[:3] for item in expected]
    assert [item[3] for item in got] == pytest.approx([item[3] for item in expected], abs=1e-5)


def works(n: int, error: Exception | None = None) -> Generator[Work, None, None]:
    planner = Planner(10, 2, 64)
    for i in range(n):
        yield planner.plan(ReadChunk.from_sequences(["ACGTAC" * (1 + i % 4)], [f"r{i}"]))
    if error:
        raise error


@pytest.mark.parametrize("runner", [run_serial, run_overlapped])
def test_runners_keep_order_and_write_what_came_before_an_input_error(runner: type) -> None:
    seen: list[str] = []

    def write(done: Explained) -> None:
        seen.extend(done.work.chunk.ids.to_pylist())

    step = ExplainStep(ToyEngine(), PREDICTED)
    with pytest.raises(InputError, match="cut"):
        runner(works(9, InputError("x: got a cut file, expected more.")), step, write, RunStats())
    assert seen == [f"r{i}" for i in range(9)]


def test_overlapped_run_stops_when_writing_fails() -> None:
    def write(done: Explained) -> None:
        raise OutputError("disk: got no space, expected some.")

    before = threading.active_count()
    with pytest.raises(OutputError, match="no space"):
        run_overlapped(works(1000), ExplainStep(ToyEngine(), PREDICTED), write, RunStats())
    assert threading.active_count() == before, "both threads have ended"


def test_overlapped_run_stops_when_the_engine_fails() -> None:
    seen: list[str] = []
    step = ExplainStep(ToyEngine(), PREDICTED)

    def failing(work: Work) -> Explained:
        if work.chunk.ids[0].as_py() == "r3":
            raise MemoryError("too much")
        return step(work)

    with pytest.raises(MemoryError):
        run_overlapped(works(1000), failing, lambda d: seen.extend(d.work.chunk.ids.to_pylist()), RunStats())
    assert seen == ["r0", "r1", "r2"]


def test_output_appears_only_when_whole(tmp_path: Path) -> None:
    output = tmp_path / "masks.parquet"
    builder = RowBuilder(RANKS)
    step = ExplainStep(ToyEngine(), PREDICTED)
    done = step(next(works(1)))
    writer = MaskWriter(output, builder.schema, {"version": "test"})
    writer.write(builder.build(done))
    assert not output.exists()
    writer.commit()
    assert output.exists()
    assert not writer.partial.exists()
    with pytest.raises(OutputError, match="--overwrite"):
        MaskWriter(output, builder.schema, {})
    again = MaskWriter(output, builder.schema, {}, overwrite=True)
    assert again.abandon() == 0
    assert not again.partial.exists()
    assert output.exists()
