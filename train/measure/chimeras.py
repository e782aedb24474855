"""Chimeras: reads joined of two halves of different classes, so that the right place of a mask is known.

    pieces that the classifier calls rightly and surely by themselves -> joined two by two, in either order
        -> asked for the class of one half -> AUC of its tokens' mask logits against the other half's, mask in and out

An AUC of 0.5 is chance: the mask does not know which half the class is in. Pieces of 6-mers are of `PIECE_BP`; of other
tokens they fill half a window, or are whole. Of a label that is there or not, the half that has it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum

from ..data.labelled import Int64s, LabelledReads
from ..data.pieces import Bools, LabelledBatch, Pieces, cut_batch, cut_pieces, joined_batch
from .explained import first_classes

PIECE_BP = 600
LEAST_PROBABILITY = 0.7  # of the right class, for a piece by itself
BATCH_ROWS = 32

# Scores of every token for a class of one rank: (batch, rank, targets int64 [B]) -> float [B, T]
Scorer = Callable[[LabelledBatch, int, Tensor], Tensor]


@dataclass(frozen=True)
class Chimeras:
    """Chimeras of one rank, each asked for one half and then, as another row, for the other.

    Rows 2i and 2i + 1 are the same read; with one question only, each row is a read.
    """

    rank: int
    asked: Pieces
    other: Pieces
    other_first: Bools
    questions: int = 2

    def __len__(self) -> int:
        return len(self.asked)

    def first(self, n: int) -> Chimeras:
        """Return the first n of them."""
        rows = np.arange(min(self.questions * n, len(self)))
        asked, other = self.asked.take(rows), self.other.take(rows)
        return Chimeras(self.rank, asked, other, self.other_first[rows], self.questions)

    def batches(self, reads: LabelledReads) -> list[LabelledBatch]:
        """Return them as batches of at most `BATCH_ROWS` rows."""
        rows = [np.arange(start, min(start + BATCH_ROWS, len(self))) for start in range(0, len(self), BATCH_ROWS)]
        return [joined_batch(reads, self.asked.take(r), self.other.take(r), self.other_first[r]) for r in rows]


@torch.no_grad()
def choose_chimeras(
    explanandum: Explanandum, reads: LabelledReads, n_chimeras: int, *, piece_bp: int = PIECE_BP, seed: int = 0
) -> list[Chimeras]:
    """Return up to so many chimeras for each rank; fewer where too few pieces are called surely.

    Args:
        piece_bp: of either half, of 6-mers; shorter reads are not used.
    """
    rng = np.random.default_rng(seed)
    if reads.coding.is_kmers:
        rows = rng.permutation(np.flatnonzero(reads.lengths >= piece_bp))
        starts = (rng.random(len(rows)) * (reads.lengths[rows] - piece_bp + 1)).astype(np.int64)
        pieces = Pieces(rows, starts, np.full(len(rows), piece_bp), rng.random(len(rows)) < 0.5)
    else:
        rows = rng.permutation(len(reads) if reads.second is None else np.flatnonzero(reads.second < 0))
        half = np.full(len(rows), max(reads.coding.window_tokens // 2, 1))
        reverse = (rng.random(len(rows)) < 0.5) & reads.coding.has_strands
        pieces = cut_pieces(reads, rows, half, rng.random(len(rows)), reverse)
    wanted = 2 * n_chimeras
    sure: list[list[int]] = [[] for _ in explanandum.slices]
    for start in range(0, len(rows), BATCH_ROWS):
        batch = cut_batch(reads, pieces.take(np.arange(start, min(start + BATCH_ROWS, len(rows)))))
        probs = explanandum.probabilities(explanandum(batch.input_ids))
        for rank, classes in enumerate(explanandum.slices):
            label = batch.labels[:, rank]
            right = probs[:, classes].gather(1, label.clamp(min=0).unsqueeze(1)).squeeze(1)
            sure[rank] += (start + np.flatnonzero(((label >= 0) & (right > LEAST_PROBABILITY)).numpy())).tolist()
        if explanandum.multi_label:  # of few texts a label is true
            n_present = [int((reads.labels[pieces.rows[found], rank] == 1).sum()) for rank, found in enumerate(sure)]
            done = all(n_chimeras <= n <= len(found) - n_chimeras for n, found in zip(n_present, sure, strict=True))
        else:
            done = all(len(found) >= 2 * wanted for found in sure)
        if done:
            break
    both = not explanandum.multi_label
    return [_pair(reads, pieces, rank, np.array(found), n_chimeras, rng, both) for rank, found in enumerate(sure)]


def _pair(
    reads: LabelledReads, pieces: Pieces, rank: int, sure: Int64s, n: int, rng: np.random.Generator, both: bool
) -> Chimeras:
    """Pair pieces whose label of the rank differs, each used once.

    Args:
        both: ask for either piece; else for the one of the higher class alone, which is yes.
    """
    labels = reads.labels[pieces.rows[sure], rank] if len(sure) else np.empty(0, np.int64)
    waiting: list[int] = []
    pairs: list[tuple[int, int]] = []
    for place in range(len(sure)):
        partner = next((i for i, other in enumerate(waiting) if labels[other] != labels[place]), None)
        if partner is None:
            waiting.append(place)
        else:
            pairs.append((waiting.pop(partner), place))
        if len(pairs) == n:
            break
    index = sure[np.array(pairs, np.int64).reshape(-1, 2)] if len(sure) else np.empty((0, 2), np.int64)
    second_first = rng.random(len(index)) < 0.5
    if not both:
        is_second = reads.labels[pieces.rows[index], rank].argmax(axis=1)
        here = np.arange(len(index))
        chosen, other = index[here, is_second], index[here, 1 - is_second]
        return Chimeras(rank, pieces.take(chosen), pieces.take(other), second_first, questions=1)
    asked = index.ravel()  # first and second of each pair in turn
    other_first = np.stack([second_first, ~second_first], axis=1).ravel()
    return Chimeras(rank, pieces.take(asked), pieces.take(index[:, ::-1].ravel()), other_first)


def token_auc(scores: Tensor, inside: Tensor, counted: Tensor) -> Tensor:
    """Return for each row how often a token inside scores higher than one outside, ties half, float64 [B].

    Args:
        scores: float [B, T]; inside, counted: bool [B, T]; NaN where either side has no token.
    """
    found = []
    for row, is_inside, is_counted in zip(scores.double(), inside, counted, strict=True):
        a, b = row[is_counted & is_inside], row[is_counted & ~is_inside]
        found.append(((a[:, None] > b).double() + 0.5 * (a[:, None] == b)).mean())
    return torch.stack(found)


def mask_scorer(explanandum: Explanandum, explainer: Explainer) -> Scorer:
    """Return the mask logits of an Explainer as scores."""

    def scores(batch: LabelledBatch, rank: int, targets: Tensor) -> Tensor:
        ids = batch.input_ids
        plain = PlainPass(ids, explanandum.valid(ids), *explanandum.read(explanandum.embed(ids), ids))
        asked = explanandum.top_classes(plain.logits)
        asked[:, rank] = targets
        return explainer.class_logits(explanandum, plain, asked + first_classes(explanandum))[:, rank]

    return scores


@torch.no_grad()
def measure_chimeras(
    explanandum: Explanandum, reads: LabelledReads, chimeras: Sequence[Chimeras], scorer: Scorer, is_mask: bool = True
) -> list[dict[str, Any]]:
    """Return for each rank the number of chimeras, the AUC, and the mean mask inside and outside the right half.

    Each with a 95 % interval over chimeras, the two questions about one averaged first.

    Args:
        is_mask: the scores are mask logits; else there is no mask to average.
    """
    measured = []
    for group in chimeras:
        columns: dict[str, list[Tensor]] = {"auc": [], "inside": [], "outside": []}
        for batch in group.batches(reads):
            scores = scorer(batch, group.rank, batch.labels[:, group.rank])
            counted = explanandum.content(batch.input_ids)  # special tokens are in neither half
            columns["auc"].append(token_auc(scores, batch.inside, counted))
            mask = torch.sigmoid(scores)
            for name, part in (("inside", batch.inside & counted), ("outside", ~batch.inside & counted)):
                columns[name].append(((mask * part).sum(dim=1) / part.sum(dim=1)).double())
        names = columns if is_mask else ("auc",)
        measured.append(
            {"n": len(group) // group.questions, **{name: _interval(columns[name], group.questions) for name in names}}
        )
    return measured


def _interval(values: Sequence[Tensor], questions: int) -> dict[str, float]:
    """Return mean and 95 % interval of rows of which so many together are of one chimera."""
    if not values:
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    each: npt.NDArray[np.float64] = torch.cat(list(values)).view(-1, questions).mean(dim=1).numpy()
    each = each[~np.isnan(each)]  # of a half that the window has cut off
    if not len(each):
        return _interval([], questions)
    mean, error = float(each.mean()), 1.96 * float(each.std(ddof=1)) / np.sqrt(len(each)) if len(each) > 1 else 0.0
    return {"mean": mean, "low": mean - error, "high": mean + error}
