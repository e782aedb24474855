"""Is the marked part what the call rests on? Measures of an explanation that need no ground truth.

Tokens are taken in the order of their scores, and hidden or shown by a mask of zeros and ones (special tokens, `<cls>`
among them, always stay):

    comprehensiveness   how much the explained class loses when the best-scored tokens are hidden (high is good)
    sufficiency         how much it loses when only they are left (low is good); both the mean over 1, 5, 10, 20, 50 %
    deletion, insertion  area under the probability as tokens are hidden (low) or shown (high), best first

Sources: DeYoung et al., "ERASER", ACL 2020 (the first two); Petsiuk et al., "RISE", BMVC 2018 (curves). Hiding as
everywhere here: embedding and pooled state times 0, the mean still over all tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.models.explanandum import Explanandum

from .explained import first_classes

ERASER_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
CURVE_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHARES = tuple(sorted({*ERASER_SHARES, *CURVE_SHARES}))
Floats = npt.NDArray[np.float64]


def best_tokens(scores: Tensor, tokens: Tensor, share: float) -> Tensor:
    """Return float32 [B, T], 1 at the best-scored `share` of each read's tokens.

    At least one token where share > 0; of equal scores the earlier token first.

    Args:
        tokens: bool [B, T], those that stand for a piece of the input (`Explanandum.content`).
    """
    order = scores.masked_fill(~tokens, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    n_best = torch.ceil(share * tokens.sum(dim=1, keepdim=True) - 1e-6)
    return ((rank < n_best) & tokens).float()


def class_probabilities(explanandum: Explanandum, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the probability of the classes int64 [B, R] (within their ranks), float32 [B, R]."""
    return explanandum.probabilities(logits).gather(1, targets + first_classes(explanandum))


def probability_curves(
    explanandum: Explanandum, embedded: Tensor, input_ids: Tensor, targets: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the explained classes' probabilities as tokens are hidden, and as they are shown, best first.

    Args:
        embedded: float32 [B, T, D]; input_ids: int [B, T]; targets: int64 [B, R]; scores: float [B, T].
    Returns: deletion and insertion, float32 [S, B, R] each, S the places of `SHARES`.
    """
    tokens = explanandum.content(input_ids)
    special = (explanandum.valid(input_ids) & ~tokens).float()
    hidden: list[Tensor] = []
    shown: list[Tensor] = []
    for share in SHARES:
        best = best_tokens(scores, tokens, share)
        rest = tokens.float() - best
        for curve, kept in ((hidden, rest + special), (shown, best + special)):
            logits = explanandum.classify(embedded, input_ids, kept)
            curve.append(class_probabilities(explanandum, logits, targets))
    return torch.stack(hidden), torch.stack(shown)


def measures(hidden: Floats, shown: Floats) -> dict[str, Floats]:
    """Return the four measures of each read and rank.

    Args:
        hidden, shown: float [S, B, R] of `probability_curves`.
    Returns: float [B, R] each.
    """
    plain = hidden[0]
    eraser = [SHARES.index(share) for share in ERASER_SHARES]
    curve = [SHARES.index(share) for share in CURVE_SHARES]
    return {
        "comprehensiveness": plain - hidden[eraser].mean(axis=0),
        "sufficiency": plain - shown[eraser].mean(axis=0),
        "deletion_auc": np.trapezoid(hidden[curve], CURVE_SHARES, axis=0),
        "insertion_auc": np.trapezoid(shown[curve], CURVE_SHARES, axis=0),
    }


def permuted(masks: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return each read's mask values in random order: a random mask of the same area.

    Args:
        tokens: bool [B, T], those whose values change places; all others, as special tokens, keep theirs.
    """
    noise = torch.rand(masks.shape, generator=generator)
    # The tokens in random order, each then put where the next token in reading order is.
    order = noise.masked_fill(~tokens, 2.0).argsort(dim=1, stable=True)
    places = (~tokens).to(torch.int8).argsort(dim=1, stable=True)
    return masks.clone().scatter(1, places, masks.gather(1, order))


class Faithfulness:
    """The measures over many batches, for any number of named explanations."""

    def __init__(self, rank_names: list[str]) -> None:
        self._ranks = rank_names
        self._values: dict[str, dict[str, list[Floats]]] = {}
        self._curves: dict[str, list[npt.NDArray[np.float64]]] = {}

    def add(self, name: str, hidden: Tensor, shown: Tensor) -> None:
        """Add curves float [S, B, R] of one explanation."""
        curves = hidden.double().numpy(), shown.double().numpy()
        for measure, values in measures(*curves).items():
            self._values.setdefault(name, {}).setdefault(measure, []).append(values)
        self._curves.setdefault(name, []).append(np.stack(curves))

    def add_values(self, name: str, measure: str, values: Tensor) -> None:
        """Add one more measure, float [B, R]."""
        self._values.setdefault(name, {}).setdefault(measure, []).append(values.double().numpy())

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return {explanation: {measure: {rank: mean}}}."""
        return {
            name: {
                measure: dict(zip(self._ranks, np.nanmean(np.concatenate(v), axis=0).round(4).tolist(), strict=True))
                for measure, v in by_measure.items()
            }
            for name, by_measure in self._values.items()
        }

    def curves(self) -> dict[str, Any]:
        """Return the mean curves, {explanation: {deletion|insertion: {rank: [value per share]}}}, and the shares."""
        out: dict[str, Any] = {"shares": list(SHARES)}
        for name, parts in self._curves.items():
            means = np.concatenate(parts, axis=2).mean(axis=2).round(4)  # [2, S, R]
            out[name] = {
                kind: {rank: means[k, :, r].tolist() for r, rank in enumerate(self._ranks)}
                for k, kind in enumerate(("deletion", "insertion"))
            }
        return out
