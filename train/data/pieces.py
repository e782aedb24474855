"""Pieces of labelled reads, cut, turned, joined and tokenised into one batch.

A chimera is joined of pieces of two reads whose classes differ, in either order, each on a strand of its own; of texts
with a space between them. It is asked for the classes of one of them, so where a right answer lies is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.texts.open import TEXTS

from .coding import Padded, letters_of
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
    """Which piece of which read: row of the read, first byte and length there; `reverse` takes the other strand.

    Each int64 [n], reverse bool [n]. Bytes are bases, and of texts those of UTF-8.
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
        input_ids: int64 [B, T], special tokens around each row, right-padded.
        labels: int64 [B, R], class within the rank, -1 unknown; of a chimera, of the piece that is asked for.
        frames: int64 [B], where codons lie, 0 to 5; -1 unknown.
        starts: int64 [B, T], first base (of texts: code point) of each token in the read; -1 at special tokens around
            the row and padding.
        inside: bool [B, T], False at tokens of a chimera's other piece.
        other_labels: int64 [B, R], of the other piece; -1 for a plain read.
        ends: int64 [B, T], where each token ends, as `starts`.
        words: int64 [B, T], which word of its row each token is of, -1 where none; of what has no words [B, 0].
    """

    input_ids: Tensor
    labels: Tensor
    frames: Tensor
    starts: Tensor
    inside: Tensor
    other_labels: Tensor
    ends: Tensor
    words: Tensor


def cut_batch(reads: LabelledReads, pieces: Pieces) -> LabelledBatch:
    """Cut pieces out of sequences, turn some to the other strand, tokenise and pad them: a read each."""
    bases, offsets = _cut(reads, pieces)
    second = None
    if reads.second is not None:  # pieces of pairs are whole
        second = np.where(pieces.lengths == reads.lengths[pieces.rows], reads.second[pieces.rows], -1)
    tokens = reads.coding.padded(bases, offsets, second)
    # Where the first codon boundary lies in the piece as it is read, and on which strand.
    phase = np.where(pieces.reverse, (pieces.starts + pieces.lengths) % 3 + 3, pieces.starts % 3)
    frames = np.where(reads.in_frame[pieces.rows], phase, NULL)
    labels = reads.labels[pieces.rows]
    return _batch(tokens, labels, frames, np.ones(tokens.ids.shape, bool), np.full_like(labels, NULL))


def chimera_batch(
    reads: LabelledReads,
    pieces: Pieces,
    share: float,
    draw: Draw,
    rng: np.random.Generator,
    room_tokens: Int64s | None = None,
) -> LabelledBatch:
    """Cut a batch of which so large a share are chimeras.

    Args:
        draw: gives the reads of which a chimera's second piece is cut.
        room_tokens: int64 [n], tokens that a chimera may have in place of each piece, both parts whole where they fit;
            None: chimeras are as long as the pieces they replace, in bases.
    """
    second = _partners(reads, pieces, rng.random(len(pieces)) < share, draw, rng)
    is_chimera = second.rows >= 0
    first_share = rng.uniform(LEAST_SHARE, 1 - LEAST_SHARE, len(pieces))
    if room_tokens is not None:
        return _joined_tokens(reads, pieces, second, first_share, room_tokens, rng)
    first_bp = (pieces.lengths * first_share).astype(np.int64)
    first_bp = np.where(is_chimera, np.maximum(first_bp, 1), pieces.lengths)
    shift = (rng.random(len(pieces)) * (pieces.lengths - first_bp + 1)).astype(np.int64)
    first = Pieces(pieces.rows, pieces.starts + shift, first_bp, pieces.reverse)
    room = np.where(is_chimera, pieces.lengths - first_bp, 0)
    second_bp = np.minimum(room, reads.lengths[second.rows])
    starts = (rng.random(len(pieces)) * (reads.lengths[second.rows] - second_bp + 1)).astype(np.int64)
    return joined_batch(
        reads, first, Pieces(second.rows, starts, second_bp, second.reverse), rng.random(len(pieces)) < 0.5
    )


def _joined_tokens(
    reads: LabelledReads,
    pieces: Pieces,
    second: Pieces,
    first_share: npt.NDArray[np.float64],
    room_tokens: Int64s,
    rng: np.random.Generator,
) -> LabelledBatch:
    """Return chimeras of `room_tokens` or fewer, and the pieces themselves where there is no second part."""
    is_chimera = second.rows >= 0
    first_tokens = np.maximum((room_tokens * first_share).astype(np.int64), 1)
    places = rng.random((2, len(pieces)))
    first = cut_pieces(reads, pieces.rows, first_tokens, places[0], pieces.reverse)
    other = cut_pieces(reads, second.rows, np.maximum(room_tokens - first_tokens, 1), places[1], second.reverse)
    first = Pieces(
        pieces.rows,
        np.where(is_chimera, first.starts, pieces.starts),
        np.where(is_chimera, first.lengths, pieces.lengths),
        pieces.reverse,
    )
    other = Pieces(second.rows, other.starts, np.where(is_chimera, other.lengths, 0), second.reverse)
    return joined_batch(reads, first, other, rng.random(len(pieces)) < 0.5)


def cut_pieces(
    reads: LabelledReads, rows: Int64s, most_tokens: Int64s, places: npt.NDArray[np.float64], reverse: Bools
) -> Pieces:
    """Return a piece of each row of so many tokens, about: the whole of a shorter one, and of a pair.

    Args:
        most_tokens: int64 [n]; places: float [n], from 0 to 1, where in the row the piece lies.
    """
    assert reads.n_tokens is not None
    whole, n_tokens = reads.lengths[rows], reads.n_tokens[rows]
    is_cut = n_tokens > most_tokens
    if reads.second is not None:
        is_cut &= reads.second[rows] < 0
    starts, lengths = np.zeros(len(rows), np.int64), whole.copy()
    wanted = (whole * (most_tokens / np.maximum(n_tokens, 1))).astype(np.int64)
    for i in np.flatnonzero(is_cut & (rows >= 0)):
        start = int(places[i] * (whole[i] - wanted[i] + 1))
        starts[i], lengths[i] = reads.coding.cut(reads.text(int(rows[i])), start, int(wanted[i]))
    return Pieces(rows, starts, lengths, reverse)


def _partners(reads: LabelledReads, pieces: Pieces, wanted: Bools, draw: Draw, rng: np.random.Generator) -> Pieces:
    """Return a read for each piece whose label of some rank is another, row -1 where none is wanted or was found."""
    n = len(pieces)
    candidates = draw(rng, n * TRIES).reshape(n, TRIES)
    mine, theirs = reads.labels[pieces.rows][:, None, :], reads.labels[candidates]
    differ = ((mine >= 0) & (theirs >= 0) & (mine != theirs)).any(axis=2)
    found = np.where(wanted & differ.any(axis=1), candidates[np.arange(n), differ.argmax(axis=1)], -1)
    zeros = np.zeros(n, np.int64)
    return Pieces(found, zeros, zeros, (rng.random(n) < 0.5) & reads.coding.has_strands)


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
    is_chimera = other.lengths > 0
    first_letters = both.lengths[::2]
    if reads.coding.kind == TEXTS:
        first_letters = letters_of(bases, piece_offsets)[::2]
    row_offsets = piece_offsets[::2]
    if joint := reads.coding.joint:
        places = np.repeat(piece_offsets[1::2][is_chimera], len(joint))
        bases = np.insert(bases, places, np.tile(np.frombuffer(joint, np.uint8), int(is_chimera.sum())))
        row_offsets = row_offsets + len(joint) * np.concatenate(([0], np.cumsum(is_chimera)))
    tokens = reads.coding.padded(bases, row_offsets)
    in_first = tokens.starts < first_letters[:, None]
    inside = np.where(other_first[:, None], ~in_first, in_first) | (tokens.starts < 0) | ~is_chimera[:, None]
    labels = reads.labels[asked.rows]
    other_labels = np.where(is_chimera[:, None], reads.labels[other.rows], NULL)
    return _batch(tokens, labels, np.full(n, NULL), inside, other_labels)


def _batch(tokens: Padded, labels: Int64s, frames: Int64s, inside: Bools, other_labels: Int64s) -> LabelledBatch:
    words = np.empty((len(labels), 0), np.int64) if tokens.words is None else tokens.words
    arrays = (tokens.ids, labels, frames, tokens.starts, inside, other_labels, tokens.ends, words)
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
