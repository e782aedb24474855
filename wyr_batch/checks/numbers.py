"""Numbers that users give: one check for every command and for Python alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wyr_batch.errors import UsageError


def check_numbers(limits: Sequence[tuple[str, float | None, float, float]]) -> None:
    """Raise UsageError for the first option whose number is outside its limits; nan always is.

    Args:
        limits: option, its value (None: not given), least and most.

    >>> check_numbers([("--top-k", 0, 1, math.inf)])
    Traceback (most recent call last):
    wyr_batch.errors.UsageError: --top-k: got 0, expected 1 or more.
    """
    for flag, value, least, most in limits:
        if value is not None and not least <= value <= most:
            between = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
            raise UsageError(flag, value, between)
