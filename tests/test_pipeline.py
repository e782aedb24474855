"""The flow around the engine: rows in input order, invariant to company, order and batch size; segments; runners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_rows import differences
from toy_engine import RANKS, ToyEngine

from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.errors import EngineError, InputError, Interrupted, OutputError
from wyr_batch.explain.step import Explained, ExplainStep
from wyr_batch.job.overlap import QUEUE_CHUNKS, run_overlapped, run_serial
from wyr_batch.job.stats import RunStats, counts_of
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.segments import find_segments, running_sum
from wyr_batch.tokens.kmers import tokenise
from wyr_batch.tokens.plan import Planner, Work

READS = st.lists(st.text("ACGTACGTACGTN", max_size=200), min_size=1, max_size=8)
PREDICTED = np.full(2, -1, np.int32)


def different(i: int) -> str:
    """Return six bases that no other i below 4,096 has."""
    return "".join("ACGT"[i >> 2 * place & 3] for place in range(6))


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
    found = find_segments(mask, running_sum(mask), tokens, chunk.lengths)
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


@pytest.mark.parametrize(("runner", "n_engines"), [(run_serial, 1), (run_overlapped, 1), (run_overlapped, 3)])
def test_runners_keep_order_and_write_what_came_before_an_input_error(
    runner: Callable[..., None], n_engines: int
) -> None:
    seen: list[str] = []

    def write(done: Explained) -> None:
        seen.extend(done.work.chunk.ids.to_pylist())

    steps = [ExplainStep(ToyEngine(), PREDICTED) for _ in range(n_engines)]
    with pytest.raises(InputError, match="cut"):
        runner(works(50, InputError("x", "a cut file", "more")), steps, write, RunStats())
    assert seen == [f"r{i}" for i in range(50)]


def test_engines_share_the_work_and_a_slow_one_holds_back_few_results() -> None:
    """The first engine waits until the others can go no further; rows still come in order."""
    step, stats = ExplainStep(ToyEngine(), PREDICTED), RunStats()
    seen: list[str] = []
    released, n_ahead = threading.Event(), []

    def slow(work: Work) -> Explained:
        if not released.is_set():
            time.sleep(0.5)
            released.set()
        return step(work)

    def fast(work: Work) -> Explained:
        if not released.is_set():
            n_ahead.append(1)
        return step(work)

    run_overlapped(works(200), [slow, fast, fast], lambda d: seen.extend(d.work.chunk.ids.to_pylist()), stats)
    assert seen == [f"r{i}" for i in range(200)]
    assert stats.n_chunks == 200
    assert 0 < len(n_ahead) <= QUEUE_CHUNKS + 3 + 2


def test_overlapped_run_stops_when_writing_fails() -> None:
    def write(done: Explained) -> None:
        raise OutputError("disk", "no space", "some")

    before = threading.active_count()
    with pytest.raises(OutputError, match="no space"):
        run_overlapped(works(1000), [ExplainStep(ToyEngine(), PREDICTED)] * 2, write, RunStats())
    assert threading.active_count() == before, "all threads have ended"


def test_overlapped_run_stops_when_an_engine_fails() -> None:
    seen: list[str] = []
    step = ExplainStep(ToyEngine(), PREDICTED)

    def failing(work: Work) -> Explained:
        if work.chunk.ids[0].as_py() == "r3":
            raise MemoryError("too much")
        return step(work)

    with pytest.raises(MemoryError):
        run_overlapped(works(1000), [failing] * 2, lambda d: seen.extend(d.work.chunk.ids.to_pylist()), RunStats())
    assert seen == ["r0", "r1", "r2"]


def test_an_interrupt_while_no_reads_come_writes_what_is_explained() -> None:
    seen: list[str] = []
    came = threading.Event()

    def stalling() -> Generator[Work, None, None]:
        yield from works(5)
        came.set()
        threading.Event().wait(timeout=1)

    def check() -> None:
        if came.is_set():
            raise Interrupted("SIGTERM")

    steps = [ExplainStep(ToyEngine(), PREDICTED)] * 2
    with pytest.raises(Interrupted):
        run_overlapped(stalling(), steps, lambda d: seen.extend(d.work.chunk.ids.to_pylist()), RunStats(), check)
    assert seen == [f"r{i}" for i in range(5)]


class LimitedEngine(ToyEngine):
    """Has memory for so many padded tokens, and fails on reads that hold the token `POISON`, alone or not."""

    POISON = 6  # AAAAAA

    def __init__(self, most_tokens: int, poisoned: str = "error") -> None:
        super().__init__()
        self.most_tokens, self.poisoned = most_tokens, poisoned

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        if input_ids.size > self.most_tokens:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        bad = (input_ids == self.POISON).any(axis=1)
        if bad.any() and self.poisoned == "error":
            raise ValueError("a kernel failed")
        out = super()._infer(input_ids, explain_ids)
        out.probs[bad] = np.nan
        return out


def test_out_of_memory_halves_batches_and_remembers() -> None:
    reads = ["ACGTAC" * (1 + i % 7) + different(i + 1) for i in range(60)]
    work = Planner(10, 2, 512).plan(ReadChunk.from_sequences(reads))
    engine = LimitedEngine(most_tokens=100)
    step = ExplainStep(engine, PREDICTED)
    done, whole = step(work), ExplainStep(ToyEngine(), PREDICTED)(work)
    assert not done.failed
    np.testing.assert_array_equal(done.mask, whole.mask)
    np.testing.assert_array_equal(done.probs, whole.probs)
    assert step.runner.most_tokens is not None
    engine.shapes.clear()
    failures = []
    engine.most_tokens, engine._infer = 100, failing_counter(engine._infer, failures)  # type: ignore[method-assign]
    step(work)
    assert not failures, "the second chunk begins with batches that fit"


def failing_counter(infer: Callable[..., EngineOutput], failures: list[str]) -> Callable[..., EngineOutput]:
    def counted(input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        try:
            return infer(input_ids, explain_ids)
        except RuntimeError as error:
            failures.append(str(error))
            raise

    return counted


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (LimitedEngine(10_000), "a kernel failed"),
        (LimitedEngine(10_000, poisoned="nan"), "the model's numbers are not finite"),
        (LimitedEngine(30), "out of memory"),
    ],
)
def test_a_read_that_fails_alone_is_a_row_with_its_reason(engine: LimitedEngine, reason: str) -> None:
    reads = ["ACGTAC" * (1 + i % 4) for i in range(50)]
    bad = [7, 8, 31]
    for i in bad:
        reads[i] = "ACGTAC" + "AAAAAA" * (40 if reason == "out of memory" else 2)
    planner = Planner(60, 2, 64)
    done = ExplainStep(engine, PREDICTED)(planner.plan(ReadChunk.from_sequences(reads)))
    assert sorted(done.failed) == bad
    assert all(reason in why for why in done.failed.values())
    builder = RowBuilder(RANKS)
    rows = builder.build(done).to_pylist()
    good = ExplainStep(ToyEngine(), PREDICTED)(planner.plan(ReadChunk.from_sequences(reads)))
    for i, (row, twin) in enumerate(zip(rows, builder.build(good).to_pylist(), strict=True)):
        if i in bad:
            assert (row["status"], row["mask"], row["kingdom"], row["mask_mean"]) == ("failed", None, None, None)
        else:
            assert row == twin
    counts = counts_of(done, builder.status(done))
    assert counts.statuses == {"ok": 47, "failed": 3}
    assert sum(counts.failures.values()) == 3


def test_an_engine_that_only_fails_ends_the_run() -> None:
    work = Planner(60, 2, 64).plan(ReadChunk.from_sequences(["AAAAAA" + different(i) for i in range(200)]))
    with pytest.raises(EngineError, match="a kernel failed"):
        ExplainStep(LimitedEngine(10_000), PREDICTED)(work)
