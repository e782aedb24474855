"""An engine with room for two batches, fed by one thread: the same rows as from a plain one, whatever goes wrong."""

from __future__ import annotations

import weakref
from collections.abc import Generator

import numpy as np
import pytest
from toy_engine import RANKS, ToyEngine

from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.errors import EngineError, Interrupted
from wyr_batch.explain.step import Explained, ExplainStep
from wyr_batch.job.overlap import run_overlapped
from wyr_batch.job.stats import RunStats
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.tokens.plan import Planner, Work

PREDICTED = np.full(2, -1, np.int32)
POISON = 6  # the token of AAAAAA


class TwoSlots(ToyEngine):
    """Computes a batch when it is waited for; has memory for so many tokens at once; fails on `POISON`."""

    in_flight = 2

    def __init__(self, most_tokens: int = 10**6, late: bool = False) -> None:
        super().__init__()
        self.most_tokens, self.late = most_tokens, late
        self.n_most = 0
        self.log: list[str] = []
        self.under_way: weakref.WeakSet[_Batch] = weakref.WeakSet()

    def _start(self, input_ids: Int32s, explain_ids: Int32s) -> _Batch:
        self.log.append("start")
        batch = _Batch(input_ids, explain_ids)
        if not self.late:
            self._need_room(batch)
        self.under_way.add(batch)
        self.n_most = max(self.n_most, len(self.under_way))
        return batch

    def _finish(self, handle: _Batch) -> EngineOutput:
        self.log.append("finish")
        if self.late:
            self.under_way.discard(handle)
            self._need_room(handle)
        if (handle.input_ids == POISON).any():
            raise ValueError("a kernel failed")
        out = self._infer(handle.input_ids, handle.explain_ids)
        self.under_way.discard(handle)
        return out

    def _need_room(self, batch: _Batch) -> None:
        if batch.input_ids.size + sum(other.input_ids.size for other in self.under_way) > self.most_tokens:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")


class _Batch:
    def __init__(self, input_ids: Int32s, explain_ids: Int32s) -> None:
        self.input_ids, self.explain_ids = input_ids, explain_ids


def reads(n: int) -> list[str]:
    rng = np.random.default_rng(n)
    return ["".join(rng.choice(list("CGT"), rng.integers(6, 300))) for _ in range(n)]


def rows_of(done: Explained) -> list[dict[str, object]]:
    return RowBuilder(RANKS, rank_masks=True).build(done).to_pylist()


def plan(sequences: list[str], names: list[str] | None = None) -> Work:
    return Planner(10, 2, 128).plan(ReadChunk.from_sequences(sequences, names))


def test_the_next_batch_is_started_before_one_is_waited_for() -> None:
    engine = TwoSlots()
    work = plan(reads(40))
    assert rows_of(ExplainStep(engine, PREDICTED)(work)) == rows_of(ExplainStep(ToyEngine(), PREDICTED)(work))
    assert engine.n_most == 2
    assert engine.log[:5] == ["start", "start", "finish", "start", "finish"]
    assert engine.log.count("start") == engine.log.count("finish")


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "at the end"])
@pytest.mark.parametrize("most_tokens", [200, 60, 16])  # 16: a window by itself, not two
def test_out_of_memory_gives_the_same_rows(most_tokens: int, late: bool) -> None:
    engine, work = TwoSlots(most_tokens, late), plan(reads(40))
    step = ExplainStep(engine, PREDICTED)
    done = step(work)
    assert not done.failed
    assert rows_of(done) == rows_of(ExplainStep(ToyEngine(), PREDICTED)(work))
    assert step.runner.most_tokens is not None
    assert not engine.under_way, "nothing of a batch that failed is held"


@pytest.mark.parametrize("bad", [[0], [3, 4, 39], [39]])
def test_reads_that_fail_alone_are_the_only_ones_without_a_result(bad: list[int]) -> None:
    sequences = reads(40)
    for i in bad:
        sequences[i] = "CGT" * 4 + "AAAAAA" * 2
    done = ExplainStep(TwoSlots(), PREDICTED)(plan(sequences))
    assert sorted(done.failed) == bad
    assert all("a kernel failed" in why for why in done.failed.values())
    good = rows_of(ExplainStep(ToyEngine(), PREDICTED)(plan(sequences)))
    for i, (row, twin) in enumerate(zip(rows_of(done), good, strict=True)):
        assert row["status"] == "failed" if i in bad else row == twin


def test_an_engine_that_only_fails_ends_the_run() -> None:
    with pytest.raises(EngineError, match="a kernel failed"):
        ExplainStep(TwoSlots(), PREDICTED)(plan(["A" * n for n in range(6, 206)]))


def works(n: int) -> Generator[Work, None, None]:
    for i in range(n):
        yield plan(reads(i % 5) * 3, [f"{i}-{j}" for j in range(3 * (i % 5))])


@pytest.mark.parametrize("n_engines", [1, 2])
def test_whole_runs_give_the_rows_of_a_plain_engine_in_order(n_engines: int) -> None:
    engines = [TwoSlots() for _ in range(n_engines)]
    found: list[dict[str, object]] = []
    steps = [ExplainStep(engine, PREDICTED) for engine in engines]
    run_overlapped(works(40), steps, lambda done: found.extend(rows_of(done)), RunStats())
    plain = ExplainStep(ToyEngine(), PREDICTED)
    assert found == [row for work in works(40) for row in rows_of(plain(work))]
    assert max(engine.n_most for engine in engines) <= 2
    assert not any(engine.under_way for engine in engines)


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "at the end"])
@pytest.mark.parametrize("most_tokens", [200, 16])
def test_whole_runs_short_of_memory_give_the_same_rows(most_tokens: int, late: bool) -> None:
    engine, found = TwoSlots(most_tokens, late), []
    step = ExplainStep(engine, PREDICTED)
    run_overlapped(works(20), [step], lambda done: found.extend(rows_of(done)), RunStats())
    plain = ExplainStep(ToyEngine(), PREDICTED)
    assert found == [row for work in works(20) for row in rows_of(plain(work))]
    assert not engine.under_way
    assert not step.runner.under_way


def test_another_chunks_batch_is_waited_for_before_halves_run() -> None:
    engine = TwoSlots(120, late=True)
    step = ExplainStep(engine, np.zeros(2, np.int32))
    before, after = step.parts(plan(["CGTCGT" * 4] * 2)), step.parts(plan(["CGTCGT" * n for n in range(2, 30)]))
    for parts in (before, before, after):
        next(parts)
    assert len(step.runner.under_way) == 2
    engine.most_tokens = 40  # the chunk before has too little room beside the next one's batch
    with pytest.raises(StopIteration) as ended:
        next(before)
    assert not ended.value.value.failed
    assert len(step.runner.under_way) == 0, "both chunks' batches have been waited for"
    next(after)
    with pytest.raises(StopIteration) as ended:
        next(after)
    assert not ended.value.value.failed


def test_nothing_is_left_under_way_when_a_chunk_ends_the_run() -> None:
    engine = TwoSlots()
    step = ExplainStep(engine, PREDICTED)
    with pytest.raises(EngineError, match="a kernel failed"):
        step(plan([*("A" * n for n in range(6, 206)), *reads(40)]))
    assert not step.runner.under_way


def test_a_chunks_first_batch_is_started_before_the_last_one_of_the_chunk_before_is_waited_for() -> None:
    engine = TwoSlots()
    step = ExplainStep(engine, np.zeros(2, np.int32))
    before, after = (step.parts(plan(["CGTCGT" * 4] * 30)) for _ in range(2))
    next(before)
    next(before)
    assert len(engine.under_way) == 1
    next(after)
    assert len(engine.under_way) == 2
    with pytest.raises(StopIteration):
        next(before)
    assert len(engine.under_way) == 1
    next(after)
    with pytest.raises(StopIteration):
        next(after)
    assert engine.n_most == 2


def test_what_is_explained_is_written_when_no_reads_come_and_before_an_interrupt() -> None:
    seen: list[str] = []
    given: list[int] = []

    def stalling() -> Generator[Work, None, None]:
        for i in range(3):
            yield plan(reads(5), [f"{i}-{j}" for j in range(5)])
        given.append(3)
        while len(seen) < 15:  # all are written while the input says nothing
            pass
        raise Interrupted("SIGTERM")

    step = ExplainStep(TwoSlots(), PREDICTED)
    with pytest.raises(Interrupted):
        run_overlapped(stalling(), [step], lambda d: seen.extend(d.work.chunk.ids.to_pylist()), RunStats())
    assert seen == [f"{i}-{j}" for i in range(3) for j in range(5)]


def test_a_chunk_that_ends_the_run_comes_after_those_before_it() -> None:
    def some() -> Generator[Work, None, None]:
        yield from works(7)
        yield plan(["A" * n for n in range(6, 206)])
        yield from works(50)

    seen: list[str] = []
    step = ExplainStep(TwoSlots(), PREDICTED)
    with pytest.raises(EngineError, match="a kernel failed"):
        run_overlapped(some(), [step], lambda d: seen.extend(d.work.chunk.ids.to_pylist()), RunStats())
    assert seen == [f"{i}-{j}" for i in range(7) for j in range(3 * (i % 5))]


def test_equal_rows_are_padded_only_for_an_engine_that_wants_it() -> None:
    for pads, n_tokens in ((True, {16}), (False, {11})):
        engine = TwoSlots()
        engine.pad_to, engine.pads_equal_rows = 8, pads
        ExplainStep(engine, np.zeros(2, np.int32))(
            Planner(10, 2, 128, pad_to=8).plan(ReadChunk.from_sequences(["CGTCGT" * 10] * 9))
        )
        assert {n for _, n in engine.shapes} == n_tokens
    engine.shapes.clear()
    ExplainStep(engine, np.zeros(2, np.int32))(
        Planner(10, 2, 128).plan(ReadChunk.from_sequences(["CGTCGT" * n for n in (10, 4)]))
    )
    assert {n for _, n in engine.shapes} == {16}
