"""Comparison of output rows: numbers within a tolerance, everything else to the letter."""

from __future__ import annotations

import math
from typing import Any


def differences(row: dict[str, Any], twin: dict[str, Any], tolerance: float, ignore: tuple[str, ...] = ()) -> list[str]:
    """Return the columns in which two rows differ."""
    assert row.keys() == twin.keys()
    return [key for key in row if key not in ignore and not _same(row[key], twin[key], tolerance)]


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=0, abs_tol=tolerance)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k], tolerance) for k in a)
    return bool(a == b)
