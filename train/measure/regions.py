"""Are the marked regions what the call rests on? ERASER's two measures, whole segments at a time.

A read's segments (runs of tokens that score above a threshold) are taken in the order of their mean score: the first,
the best half, all of them. Each time the explained class is asked for again, with them hidden, and with nothing else
left. `random` does the same with segments of the same lengths at random places of the read.

    region_comprehensiveness   what the class loses when they are hidden (high is good)
    region_sufficiency         what it loses when only they are left (low is good)

Single tokens hidden here and there (`faithfulness`) hurt a classifier that reads tokens in context whatever they are; a
region is what a person would cut out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.models.explanandum import Explanandum

from .explained import Explained
from .faithfulness import class_probabilities

SHARES = (0.0, 0.5, 1.0)  # of the segments that are taken; at least one
Bools = npt.NDArray[np.bool_]


def region_measures(
    explanandum: Explanandum, found: Explained, scores: Tensor, opened: Tensor, rng: np.random.Generator
) -> dict[str, dict[str, Tensor]]:
    """Return {"regions" or "random": {measure: float [B, R]}}, the mean over `SHARES`; NaN without a segment.

    Args:
        scores: float [B, T]; opened: bool [B, T], the tokens that are in segments.
        rng: places the random segments.
    """
    tokens = found.content
    special = (found.valid & ~tokens).float()
    opened = opened & tokens
    plain = class_probabilities(explanandum, explanandum.classify(found.embedded, found.input_ids), found.targets)
    plain = plain.masked_fill(~opened.any(dim=1, keepdim=True), torch.nan)
    totals = {name: {"comprehensiveness": 0 * plain, "sufficiency": 0 * plain} for name in ("regions", "random")}
    for taken in _taken(scores.numpy(), opened.numpy(), tokens.numpy(), rng):
        for name, regions in taken.items():
            kept = torch.from_numpy(regions).float()
            for measure, mask in (("comprehensiveness", tokens.float() - kept), ("sufficiency", kept)):
                logits = found.classify(mask + special)
                left = class_probabilities(explanandum, logits, found.targets)
                totals[name][measure] = totals[name][measure] + (plain - left) / len(SHARES)
    return {name: {f"region_{m}": value for m, value in by.items()} for name, by in totals.items()}


def _taken(
    scores: npt.NDArray[np.floating], opened: Bools, tokens: Bools, rng: np.random.Generator
) -> list[dict[str, Bools]]:
    """Return for each of `SHARES` the tokens of the segments taken, bool [B, T], and of random ones as long."""
    taken = [{name: np.zeros(opened.shape, bool) for name in ("regions", "random")} for _ in SHARES]
    for row, (score, is_open, is_token) in enumerate(zip(scores, opened, tokens, strict=True)):
        edges = np.flatnonzero(np.diff(np.pad(is_open.astype(np.int8), 1)))
        starts, ends = edges[::2], edges[1::2]
        if not len(starts):
            continue
        means = np.array([score[start:end].mean() for start, end in zip(starts, ends, strict=True)])
        best = np.argsort(-means, kind="stable")
        places = np.flatnonzero(is_token)
        for share, found in zip(SHARES, taken, strict=True):
            some = best[: max(1, round(share * len(best)))]
            for start, end in zip(starts[some], ends[some], strict=True):
                found["regions"][row, start:end] = True
            found["random"][row, places] = random_segments(ends[some] - starts[some], len(places), rng)
    return taken


def random_segments(lengths: npt.NDArray[np.integer], n_tokens: int, rng: np.random.Generator) -> Bools:
    """Return bool [n_tokens] with segments of these lengths at random places and in random order, none overlapping."""
    gaps = np.sort(rng.integers(0, n_tokens - int(lengths.sum()) + 1, len(lengths)))
    placed = np.zeros(n_tokens, bool)
    end = 0
    for gap, length in zip(gaps, rng.permutation(lengths), strict=True):
        placed[gap + end : gap + end + length] = True
        end += length
    return placed
