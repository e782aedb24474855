"""What masks look like over many reads: figures 6a, 6b, 7a and 7b of the paper as numbers, and their sparseness."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

N_BINS = 50
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.intp]


def gini(masks: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    """Return each row's Gini coefficient: 0 where every token counts alike, towards 1 where one token has it all.

    Args:
        masks: float [B, T], not negative; valid: bool [B, T].
    Returns: float64 [B]; 0 for rows that are empty or all zeros.
    """
    n = valid.sum(axis=1)
    ordered = np.sort(np.where(valid, masks, -1.0), axis=1)  # padding first
    rank = np.arange(1, masks.shape[1] + 1) - (masks.shape[1] - n)[:, None]  # 1 at the smallest real token
    weighted = (np.where(rank > 0, ordered * rank, 0.0)).sum(axis=1)
    total = np.where(rank > 0, ordered, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = 2 * weighted / (n * total) - (n + 1) / n
    return np.where(total > 0, value, 0.0)


def segment_lengths(
    masks: Floats, valid: npt.NDArray[np.bool_], opened: npt.NDArray[np.bool_] | None = None
) -> tuple[Counts, Counts]:
    """Return the number of segments of each row, int64 [B], and the length of every segment in tokens.

    Args:
        opened: bool [B, T], the tokens in segments; None: those whose mask is 0.5 or more.
    """
    inside = (masks >= 0.5 if opened is None else opened) & valid
    edges = np.diff(np.pad(inside.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return np.bincount(starts[0], minlength=len(masks)), ends[1] - starts[1]


def compact(
    mask: Tensor, content: Tensor, opened: Tensor
) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return mask, tokens and those in segments, [B, N] each, with what is no content left out of every row.

    Args:
        mask: float [B, T]; content, opened: bool [B, T].
    """
    order = (~content).to(torch.int8).argsort(dim=1, stable=True)[:, : int(content.sum(dim=1).max())]
    kept = content.gather(1, order)
    return mask.gather(1, order).double().numpy(), kept.numpy(), opened.gather(1, order).numpy()


class MaskStatistics:
    """Sums over batches of masks, special tokens not counted."""

    def __init__(self) -> None:
        self._histogram = np.zeros(N_BINS, np.int64)
        self._n_open = 0
        self._positions: dict[str, Floats] = {}
        self._segments: list[Counts] = []
        self._lengths: list[Counts] = []
        self._ginis: list[Floats] = []
        self._means: list[Floats] = []

    def add(self, masks: Floats, valid: npt.NDArray[np.bool_], opened: npt.NDArray[np.bool_] | None = None) -> None:
        """Add masks float [B, T] of tokens bool [B, T], special ones already cut off; `opened` as `segment_lengths`."""
        values = masks[valid]
        self._histogram += np.histogram(values, N_BINS, (0.0, 1.0))[0]
        self._n_open += int((values >= 0.5).sum())
        self._add_positions(masks, valid)
        counts, lengths = segment_lengths(masks, valid, opened)
        self._segments.append(counts)
        self._lengths.append(lengths)
        self._ginis.append(gini(masks, valid))
        self._means.append((masks * valid).sum(axis=1) / np.maximum(valid.sum(axis=1), 1))

    def _add_positions(self, masks: Floats, valid: npt.NDArray[np.bool_]) -> None:
        width = max(masks.shape[1], len(self._positions.get("n", ())))
        empty = {"n": 0.0, "sum": 0.0, "square": 0.0, "least": np.inf, "most": -np.inf}
        for name, value in empty.items():
            old = self._positions.get(name, np.empty(0))
            self._positions[name] = np.concatenate((old, np.full(width - len(old), value)))
        here, at = self._positions, slice(0, masks.shape[1])
        here["n"][at] += valid.sum(axis=0)
        here["sum"][at] += (masks * valid).sum(axis=0)
        here["square"][at] += (masks**2 * valid).sum(axis=0)
        here["least"][at] = np.minimum(here["least"][at], np.where(valid, masks, np.inf).min(axis=0))
        here["most"][at] = np.maximum(here["most"][at], np.where(valid, masks, -np.inf).max(axis=0))

    def summary(self) -> dict[str, float]:
        """Return the masks' figures in one line each."""
        n = int(self._histogram.sum())
        segments, lengths = np.concatenate(self._segments), np.concatenate(self._lengths)
        return {
            "mask_mean": round(float(self._positions["sum"].sum() / n), 4),
            "mask_share_above_half": round(self._n_open / n, 4),
            "segments_per_read": round(float(segments.mean()), 2),
            "segment_mean_tokens": round(float(lengths.mean()), 2) if len(lengths) else 0.0,
            "gini": round(float(np.concatenate(self._ginis).mean()), 4),
            "mask_mean_sd_between_reads": round(float(np.concatenate(self._means).std()), 4),
        }

    def figures(self) -> dict[str, Any]:
        """Return the data behind the paper's figures 6a, 6b, 7a and 7b."""
        here = self._positions
        mean = here["sum"] / here["n"]
        sd = np.sqrt(np.maximum(here["square"] / here["n"] - mean**2, 0.0))
        rounded = {"mean": mean, "sd": sd, "min": here["least"], "max": here["most"]}
        segments, lengths = np.concatenate(self._segments), np.concatenate(self._lengths).astype(np.int64)
        return {
            "mask_histogram": {"bins": N_BINS, "counts": self._histogram.tolist()},
            "mask_by_position": {
                "n_reads": here["n"].astype(np.int64).tolist(),
                **{name: np.round(values, 4).tolist() for name, values in rounded.items()},
            },
            "segments_per_read": np.bincount(segments).tolist(),
            "segment_tokens": np.bincount(lengths).tolist(),
        }
