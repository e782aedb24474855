"""Precision that never goes down by itself."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Return x in float32, or as it is if it is that or float64: half precision never goes further than here.

    What is as it should be is not touched, for a conversion to the same type is one more operation to trace.
    """
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
