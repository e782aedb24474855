"""Training batches cut from labelled reads.

A batch is a function of (seed, step) alone, so an interrupted training goes on with the very batches it would
have seen. All reads of a batch are cut to one random length: hardly any padding, and every length is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wyr_batch.errors import UsageError
from wyr_batch.tokens.kmers import TOKEN_BP

from .labelled import Int64s, LabelledReads
from .pieces import LabelledBatch, Pieces, chimera_batch, cut_batch, cut_pieces

SHORT_TOKENS = 16  # of the shortest piece that is cut on purpose, other than of 6-mers


def sampling_weights(labels: Int64s, null_leaf_weight: float, multi_label: bool = False) -> npt.NDArray[np.float64]:
    """Return each sequence's probability of being drawn: every finest class alike.

    Sequences without a finest label form one group per coarsest class, drawn `null_leaf_weight` times as often as
    one finest class.

    Args:
        multi_label: each rank is a label that is there (1) or not: every label is drawn alike, and a sequence of
            several for each of them; those without any label are drawn as often as one label is.
    """
    if multi_label:
        present = labels == 1
        groups = np.column_stack((present, ~present.any(axis=1)))
        each = (groups / np.maximum(groups.sum(axis=0), 1)).sum(axis=1)
        of_labels: npt.NDArray[np.float64] = each / each.sum()
        return of_labels
    leaf = np.where(labels[:, -1] >= 0, labels[:, -1], -2 - labels[:, 0])
    names, inverse, counts = np.unique(leaf, return_inverse=True, return_counts=True)
    weights = np.where(names >= 0, 1.0, null_leaf_weight) / counts
    drawn = weights[inverse]
    shares: npt.NDArray[np.float64] = drawn / drawn.sum()
    return shares


def class_priors(labels: Int64s, weights: npt.NDArray[np.float64], sizes: Sequence[int]) -> Tensor:
    """Return the share of each class among the drawn sequences that have a label of its rank, float32 [C]."""
    shares = []
    for r, size in enumerate(sizes):
        known = labels[:, r] >= 0
        share = np.bincount(labels[known, r], weights[known], minlength=size)
        shares.append(share / share.sum())
    return torch.from_numpy(np.concatenate(shares)).float()


class StepBatches(Dataset[LabelledBatch]):
    """Item i is the training batch of step i.

    Reads are drawn for `SORTED_STEPS` batches at once and dealt out by length, so that a batch has little padding.
    """

    SORTED_STEPS = 16

    def __init__(
        self,
        reads: LabelledReads,
        n_steps: int,
        *,
        batch_reads: int = 128,
        window_bp: int = 1500,
        short_bp: int = 100,
        full_share: float = 0.5,
        null_leaf_weight: float = 8.0,
        balanced: bool = True,
        multi_label: bool = False,
        chimera_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            balanced: draw every finest class alike (`sampling_weights`); else every sequence.
            batch_reads: rows a batch.
            window_bp: longest piece of a read of 6-mers, bases; of others the window is their coding's.
            full_share: share of the reads cut at the window; the rest at a length drawn log-uniformly from short_bp
                (at most window_bp) to window_bp, of other tokens than 6-mers from `SHORT_TOKENS`.
            chimera_share: share of the reads that are joined of pieces of two.
        Raises: UsageError for chimeras of pairs.
        """
        if chimera_share and reads.has_pairs:
            raise UsageError("--chimera-share", "it for pairs of texts", "single texts: two pairs are no pair")
        self.reads, self.n_steps, self.seed, self.batch_reads = reads, n_steps, seed, batch_reads
        self.window_bp, self.short_bp, self.full_share = window_bp, min(short_bp, window_bp), full_share
        self.weights = sampling_weights(reads.labels, null_leaf_weight, multi_label)
        if not balanced:
            self.weights = np.full(len(reads), 1 / len(reads))
        self._cumulative = np.cumsum(self.weights)
        self.chimera_share = chimera_share

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> LabelledBatch:
        group, place = divmod(step, self.SORTED_STEPS)
        rng = np.random.default_rng((self.seed, group))
        if not self.reads.coding.is_kmers:
            return self._of_tokens(step, place, rng)
        n = self.batch_reads * self.SORTED_STEPS
        rows = self._draw(rng, n)
        cut_bp = np.exp(rng.uniform(np.log(self.short_bp), np.log(self.window_bp), n)).astype(np.int64)
        cut_bp[rng.random(n) < self.full_share] = self.window_bp
        available = self.reads.lengths[rows]
        lengths = np.minimum(available, cut_bp)
        # A whole sequence still starts at a random one of its first six bases, so that no frame is special.
        slack = np.maximum(available - lengths, np.minimum(TOKEN_BP - 1, available // 2))
        starts = (rng.random(n) * (slack + 1)).astype(np.int64)
        lengths = np.minimum(lengths, available - starts)
        reverse = rng.random(n) < 0.5
        turn = rng.permutation(self.SORTED_STEPS)[place]
        dealt = np.argsort(lengths, kind="stable")[turn * self.batch_reads : (turn + 1) * self.batch_reads]
        pieces = Pieces(rows[dealt], starts[dealt], lengths[dealt], reverse[dealt])
        if not self.chimera_share:
            return cut_batch(self.reads, pieces)
        return chimera_batch(
            self.reads, pieces, self.chimera_share, self._draw, np.random.default_rng((self.seed, 1, step))
        )

    def _of_tokens(self, step: int, place: int, rng: np.random.Generator) -> LabelledBatch:
        """Return the batch of a step where a window is of tokens."""
        reads, n = self.reads, self.batch_reads * self.SORTED_STEPS
        assert reads.n_tokens is not None
        most = reads.coding.window_tokens
        rows = self._draw(rng, n)
        cut_tokens = np.exp(rng.uniform(np.log(min(SHORT_TOKENS, most)), np.log(most), n)).astype(np.int64)
        cut_tokens[rng.random(n) < self.full_share] = most
        places, reverse = rng.random(n), (rng.random(n) < 0.5) & reads.coding.has_strands
        turn = rng.permutation(self.SORTED_STEPS)[place]
        order = np.argsort(np.minimum(reads.n_tokens[rows], cut_tokens), kind="stable")
        dealt = order[turn * self.batch_reads : (turn + 1) * self.batch_reads]
        pieces = cut_pieces(reads, rows[dealt], cut_tokens[dealt], places[dealt], reverse[dealt])
        if not self.chimera_share:
            return cut_batch(reads, pieces)
        own = np.random.default_rng((self.seed, 1, step))
        return chimera_batch(reads, pieces, self.chimera_share, self._draw, own, cut_tokens[dealt])

    def _draw(self, rng: np.random.Generator, n: int) -> Int64s:
        rows: Int64s = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        return rows


def batches_by_length(n_tokens: Int64s, batch_tokens: int, batch_rows: int | None = None) -> list[Int64s]:
    """Return rows grouped by like length, int64 each, no batch wider than a budget of padded tokens.

    Args:
        n_tokens: int64 [n], tokens of each row.
        batch_rows: most rows of a batch; None sets no limit.
    """
    order = np.argsort(n_tokens, kind="stable")
    batches: list[Int64s] = []
    start = 0
    while start < len(order):
        end = start + 1
        most = len(order) if batch_rows is None else min(len(order), start + batch_rows)
        while end < most and n_tokens[order[end]] * (end + 1 - start) <= batch_tokens:
            end += 1
        batches.append(order[start:end])
        start = end
    return batches


def evaluation_batches(reads: LabelledReads, window_bp: int, batch_tokens: int = 16384) -> list[Int64s]:
    """Return rows of `reads` grouped by length into batches, the first window of each.

    Args:
        window_bp: of 6-mers; of others the window is their coding's.
    """
    if reads.n_tokens is not None:
        n_tokens = np.minimum(reads.n_tokens, reads.coding.window_tokens) + reads.coding.vocabulary.n_special
        return batches_by_length(n_tokens, batch_tokens)
    return batches_by_length(np.minimum(reads.lengths, window_bp) // TOKEN_BP + TOKEN_BP, batch_tokens)


def evaluation_batch(reads: LabelledReads, rows: Int64s, window_bp: int) -> LabelledBatch:
    """Return the first window of the given rows as one batch: `window_bp` bases, or what their coding takes."""
    lengths = reads.lengths[rows]
    if reads.coding.is_kmers:
        lengths = np.minimum(lengths, window_bp)
    return cut_batch(reads, Pieces(rows, np.zeros_like(rows), lengths, np.zeros(len(rows), bool)))
