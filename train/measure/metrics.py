"""Classification metrics with null labels left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def balanced_accuracy(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """Return the mean over classes of the share of their reads that is predicted right.

    Args:
        labels: int64 [n], -1 where null (left out); classes without a read do not count.
        predicted: int64 [n].

    >>> balanced_accuracy(np.array([0, 0, 0, 1, -1]), np.array([0, 0, 1, 1, 0]))
    0.8333333333333333
    """
    known = labels >= 0
    if not known.any():
        return float("nan")
    right = np.bincount(labels[known], predicted[known] == labels[known])
    total = np.bincount(labels[known])
    return float((right[total > 0] / total[total > 0]).mean())
