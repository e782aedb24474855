"""Rows padded to a multiple: what goes to the engine, never more than it takes, and the same rows out."""

from __future__ import annotations

import numpy as np
import pytest
from same_rows import differences
from toy_engine import RANKS, ToyEngine

from wyr_batch.explain.step import ExplainStep
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.tokens.batches import padded_length, plan_batches
from wyr_batch.tokens.plan import Planner


@pytest.mark.parametrize("max_tokens", [61, 64])
def test_engine_gets_padded_rows_within_the_budget_and_rows_stay_the_same(max_tokens: int) -> None:
    rng = np.random.default_rng(0)
    reads = ["".join(rng.choice(list("ACGTN"), rng.integers(0, 400))) for _ in range(60)]
    tables = []
    for pad_to in (1, 8):
        engine = ToyEngine(max_tokens=max_tokens)
        engine.pad_to = pad_to
        work = Planner(max_tokens - 1, 4, 300, pad_to=pad_to).plan(ReadChunk.from_sequences(reads))
        step = ExplainStep(engine, np.full(2, -1, np.int32))
        tables.append(RowBuilder(RANKS, rank_masks=True).build(step(work)).to_pylist())
        assert all(n % pad_to == 0 or n == max_tokens for _, n in engine.shapes)
        assert max(n for _, n in engine.shapes) == max_tokens
        assert all(rows * n <= 300 or rows == 1 for rows, n in engine.shapes)
    for row, twin in zip(*tables, strict=True):
        assert not differences(row, twin, 1e-6)


def test_padded_length_never_cuts_and_never_exceeds() -> None:
    for n in range(1, 70):
        assert n <= padded_length(n, 8, 64) <= max(n, 64)
        assert padded_length(n, 1, 64) == n


def test_batches_hold_the_budget_and_the_last_two_are_alike() -> None:
    assert [len(batch) for batch in plan_batches(np.full(10, 8), 64, pad_to=8)] == [4, 3, 3]
    assert [len(batch) for batch in plan_batches(np.full(8, 8), 64, pad_to=8)] == [4, 4]
    assert [len(batch) for batch in plan_batches(np.full(3, 8), 64, pad_to=8)] == [3]
    counts = np.random.default_rng(0).integers(1, 60, 500)
    batches = plan_batches(counts, 640, pad_to=8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(batch) * padded_length(int(counts[batch].max()) + 1, 8, 64) <= 640 for batch in batches)
    assert 0 <= len(batches[-2]) - len(batches[-1]) <= 1
