"""Windows: cutting and stitching are inverses, and what is kept of them partitions each read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wyr_batch.tokens.batches import kept_tokens, pad_batch, plan_batches
from wyr_batch.tokens.kmers import CLS_ID, PAD_ID
from wyr_batch.tokens.windows import combine_probs, cut_windows

READS = st.lists(st.integers(0, 70), max_size=15)
SIZES = st.integers(1, 20).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w // 2), st.integers(1, 80)))


def offsets_of(counts: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)


@given(READS, SIZES)
def test_stitch_is_the_inverse_of_cut(counts: list[int], sizes: tuple[int, int, int]) -> None:
    window, overlap, budget = sizes
    offsets = offsets_of(counts)
    windows = cut_windows(offsets, window, overlap)
    ids = (np.arange(offsets[-1]) % 4000 + 6).astype(np.int16)
    seen = np.zeros(len(ids), np.int64)
    stitched = np.zeros(len(ids), np.int16)
    rows_seen = []
    for rows in plan_batches(windows.count, budget):
        batch = pad_batch(ids, windows, rows)
        assert (batch[:, 0] == CLS_ID).all()
        assert batch.size <= budget or len(rows) == 1
        assert ((batch != PAD_ID).sum(axis=1) == windows.count[rows] + 1).all()
        cell, token = kept_tokens(windows, rows, batch.shape[1])
        seen[token] += 1
        stitched[token] = batch.ravel()[cell]
        rows_seen += rows.tolist()
    assert sorted(rows_seen) == list(range(len(windows)))
    assert (seen == 1).all(), "each token's value comes from exactly one window"
    assert (stitched == ids).all()
    assert (windows.count <= window).all()
    assert (windows.start >= offsets[windows.read]).all(), "a window stays in its read"
    assert (windows.start + windows.count <= offsets[windows.read + 1]).all()
    assert ((np.diff(windows.first) > 0) == (np.array(counts, dtype=np.int64) > 0)).all()


def test_long_read_has_full_windows_and_shared_overlaps() -> None:
    windows = cut_windows(np.array([0, 25]), 10, 4)
    assert windows.start.tolist() == [0, 6, 12, 15]
    assert windows.count.tolist() == [10, 10, 10, 10]
    assert windows.keep_start.tolist() == [0, 8, 14, 18]
    assert windows.keep_end.tolist() == [8, 14, 18, 25]


def test_combined_windows_equal_pooling_over_all_of_them() -> None:
    rng = np.random.default_rng(1)
    windows = cut_windows(offsets_of([25, 0, 7]), 10, 0)
    logits = rng.normal(size=(len(windows), 5)).astype(np.float32)
    slices = [slice(0, 2), slice(2, 5)]

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.exp(x[:, s]) / np.exp(x[:, s]).sum(axis=1, keepdims=True) for s in slices], axis=1)

    combined = combine_probs(softmax(logits).astype(np.float32), windows, slices)
    kept = (windows.keep_end - windows.keep_start)[:3]
    whole = softmax((logits[:3] * kept[:, None]).sum(axis=0, keepdims=True) / kept.sum())
    np.testing.assert_allclose(combined[0], whole[0], atol=1e-6)
    assert (combined[1] == 0).all(), "an empty read has no distribution"
    np.testing.assert_array_equal(combined[2], softmax(logits)[3].astype(np.float32))
