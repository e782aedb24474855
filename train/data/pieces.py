"""Pieces of labelled reads, cut, turned, joined and tokenised into one batch.

A chimera is joined of pieces of two reads whose classes differ, in either order, each on a strand of its own. It is
asked for the classes of one of them, so where a right answer lies is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.tokens.kmers import CLS_ID, PAD_ID, tokenise

from .labelled import NULL, Int64s, LabelledReads

Bools = npt.NDArray[np.bool_]
Draw = Callable[[np.random.Generator, int], Int64s]  # so many rows of the reads, drawn with replacement

LEAST_SHARE = 0.25  # of a chimera that either piece is
TRIES = 8  # partners drawn for a chimera before it is left a plain read

_COMPLEMENT = np.arange(256, dtype=np.uint8)
for _a, _b in ("AT", "TA", "CG", "GC", "RY", "YR", "KM", "MK", "BV", "VB", "DH", "HD"):
    _COMPLEMENT[[ord(_a), ord(_a.lower())]] = ord(_b)


@dataclass(frozen=True)
class Pieces:
    """Which piece of which read: row of the read, first base and length there; `reverse` takes the other strand.

    Each int64 [n], reverse bool [n].
    """

    rows: Int64s
    starts: Int64s
    lengths: Int64s
    reverse: Bools

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Int64s | Bools) -> Pieces:
        """Return some of the pieces."""
        return Pieces(self.rows[index], self.starts[index], self.lengths[index], self.reverse[index])


@dataclass(frozen=True)
class LabelledBatch:
    """One batch of reads, plain ones and chimeras.

    Attributes:
        input_ids: int64 [B, T], `<cls>` first, right-padded.
        labels: int64 [B, R], class within the rank, -1 unknown; of a chimera, of the piece that is asked for.
        frames: int64 [B], where codons lie, 0 to 5; -1 unknown.
        starts: int64 [B, T], first base of each token in the read; -1 at `<cls>` and padding.
        inside: bool [B, T], False at tokens of a chimera's other piece.
        other_labels: int64 [B, R], of the other piece; -1 for a plain read.
    """

    input_ids: Tensor
    labels: Tensor
    frames: Tensor
    starts: Tensor
    inside: Tensor
    other_labels: Tensor


def cut_batch(reads: LabelledReads, pieces: Pieces) -> LabelledBatch:
    """Cut pieces out of sequences, turn some to the other strand, tokenise and pad them: a read each."""
    bases, offsets = _cut(reads, pieces)
    ids, token_starts = _padded_tokens(bases, offsets)
    # Where the first codon boundary lies in the piece as it is read, and on which strand.
    phase = np.where(pieces.reverse, (pieces.starts + pieces.lengths) % 3 + 3, pieces.starts % 3)
    frames = np.where(reads.in_frame[pieces.rows], phase, NULL)
    labels = reads.labels[pieces.rows]
    return _batch(ids, labels, frames, token_starts, np.ones(ids.shape, bool), np.full_like(labels, NULL))


def chimera_batch(
    reads: LabelledReads, pieces: Pieces, share: float, draw: Draw, rng: np.random.Generator
) -> LabelledBatch:
    """Cut a batch of which so large a share are chimeras, no longer than the pieces they replace.

    Args:
        draw: gives the reads of which a chimera's second piece is cut.
    """
    second = _partners(reads, pieces, rng.random(len(pieces)) < share, draw, rng)
    is_chimera = second.rows >= 0
    first_bp = (pieces.lengths * rng.uniform(LEAST_SHARE, 1 - LEAST_SHARE, len(pieces))).astype(np.int64)
    first_bp = np.where(is_chimera, np.maximum(first_bp, 1), pieces.lengths)
    shift = (rng.random(len(pieces)) * (pieces.lengths - first_bp + 1)).astype(np.int64)
    first = Pieces(pieces.rows, pieces.starts + shift, first_bp, pieces.reverse)
    room = np.where(is_chimera, pieces.lengths - first_bp, 0)
    second_bp = np.minimum(room, reads.lengths[second.rows])
    starts = (rng.random(len(pieces)) * (reads.lengths[second.rows] - second_bp + 1)).astype(np.int64)
    return joined_batch(
        reads, first, Pieces(second.rows, starts, second_bp, second.reverse), rng.random(len(pieces)) < 0.5
    )


def _partners(reads: LabelledReads, pieces: Pieces, wanted: Bools, draw: Draw, rng: np.random.Generator) -> Pieces:
    """Return a read for each piece whose label of some rank is another, row -1 where none is wanted or was found."""
    n = len(pieces)
    candidates = draw(rng, n * TRIES).reshape(n, TRIES)
    mine, theirs = reads.labels[pieces.rows][:, None, :], reads.labels[candidates]
    differ = ((mine >= 0) & (theirs >= 0) & (mine != theirs)).any(axis=2)
    found = np.where(wanted & differ.any(axis=1), candidates[np.arange(n), differ.argmax(axis=1)], -1)
    zeros = np.zeros(n, np.int64)
    return Pieces(found, zeros, zeros, rng.random(n) < 0.5)


def joined_batch(reads: LabelledReads, asked: Pieces, other: Pieces, other_first: Bools) -> LabelledBatch:
    """Join pieces two by two, tokenise and pad them.

    Args:
        asked: the pieces whose classes are asked for.
        other: what each is joined with; a length of 0 leaves the read a plain one.
        other_first: bool [n], the other piece comes first.
    """
    n = len(asked)
    order = np.where(other_first[:, None], [n, 0], [0, n]) + np.arange(n)[:, None]  # [n, 2], among asked, then other
    both = Pieces(
        np.concatenate((asked.rows, other.rows)),
        np.concatenate((asked.starts, other.starts)),
        np.concatenate((asked.lengths, other.lengths)),
        np.concatenate((asked.reverse, other.reverse)),
    ).take(order.ravel())
    bases, piece_offsets = _cut(reads, both)
    ids, starts = _padded_tokens(bases, piece_offsets[::2])
    first_bp = both.lengths[::2]
    in_first = starts < first_bp[:, None]
    inside = np.where(other_first[:, None], ~in_first, in_first) | (starts < 0) | (other.lengths == 0)[:, None]
    labels, is_chimera = reads.labels[asked.rows], other.lengths > 0
    other_labels = np.where(is_chimera[:, None], reads.labels[other.rows], NULL)
    return _batch(ids, labels, np.full(n, NULL), starts, inside, other_labels)


def _batch(*arrays: Int64s | Bools) -> LabelledBatch:
    return LabelledBatch(*(torch.from_numpy(array) for array in arrays))


def _cut(reads: LabelledReads, pieces: Pieces) -> tuple[npt.NDArray[np.uint8], Int64s]:
    """Return the bases of all pieces, one after the other, and their offsets, int64 [n + 1]."""
    lengths = pieces.lengths
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    turned = np.repeat(pieces.reverse, lengths)
    place = np.where(turned, np.repeat(lengths, lengths) - 1 - place, place)
    bases = reads.bases[np.repeat(reads.offsets[pieces.rows] + pieces.starts, lengths) + place]
    return np.where(turned, _COMPLEMENT[bases], bases), offsets


def _padded_tokens(bases: npt.NDArray[np.uint8], offsets: Int64s) -> tuple[Int64s, Int64s]:
    """Return token ids of reads, int64 [B, T], and each token's first base, -1 at `<cls>` and padding."""
    tokens = tokenise(bases, offsets)
    counts = tokens.counts
    ids = np.full((len(counts), int(counts.max(initial=0)) + 1), PAD_ID, np.int64)
    starts = np.full(ids.shape, -1, np.int64)
    ids[:, 0] = CLS_ID
    row_of = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], counts) + 1
    ids[row_of, place], starts[row_of, place] = tokens.ids, tokens.starts
    return ids, starts
