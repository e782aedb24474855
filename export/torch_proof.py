"""Proof against float32 torch: what `proof.compare` measures, the reference being the trained models in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch

from wyr_batch.models.fused import Fused
from wyr_batch.proof.compare import (
    BATCH_SIZES,
    FLOAT16,
    FLOAT32,
    LENGTHS,
    THRESHOLDS,
    Candidate,
    Int32s,
    ParityRecord,
    Remembered,
    Thresholds,
)
from wyr_batch.proof.compare import compare as compare_arrays

__all__ = ["FLOAT16", "FLOAT32", "THRESHOLDS", "Candidate", "ParityRecord", "Remembered", "compare", "torch_runner"]


def compare(
    candidate: Candidate,
    reference: Fused,
    max_tokens: int,
    *,
    thresholds: Thresholds = FLOAT32,
    reads: Sequence[npt.ArrayLike] | None = None,
    lengths: Sequence[int] = LENGTHS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    remembered: Remembered | None = None,
) -> ParityRecord:
    """Compare a candidate with the float32 torch reference and judge it; see `wyr_batch.proof.compare.compare`.

    Args:
        reference: the trained models in torch, float32; where it lies, it runs.
    """
    return compare_arrays(
        candidate,
        torch_runner(reference),
        reference.explanandum.slices,
        max_tokens,
        thresholds=thresholds,
        reads=reads,
        lengths=lengths,
        batch_sizes=batch_sizes,
        remembered=remembered,
    )


def torch_runner(module: Fused) -> Candidate:
    """Return the module as a function of int32 arrays; where it lies, it runs."""

    def run(ids: Int32s, asked: Int32s) -> tuple[npt.NDArray[Any], ...]:
        device = module.first_class.device
        with torch.inference_mode():
            out = module(torch.from_numpy(ids).to(device), torch.from_numpy(asked).to(device))
        return tuple(tensor.cpu().numpy() for tensor in out)

    return run
