"""Bounds of settings, and the checks that name the first setting beyond them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wyr_batch.checks.numbers import check_numbers
from wyr_batch.errors import UsageError

MOST = 10**9  # of anything counted: far beyond use, and every product of two still fits in 64 bits
MOST_BATCH_READS = 10**6
MOST_THREADS = 4096
MOST_SEED = 2**32 - 1  # numpy takes no more
# What EncoderConfig.from_json reads again.
MOST_WIDTH, MOST_LAYERS = 1 << 20, 1000


def check_counts(counts: Sequence[tuple[str, int | None, int]], most: int = MOST) -> None:
    """Raise UsageError for the first option whose count is below its least, or absurdly large; None: not given."""
    check_numbers([(flag, value, least, math.inf) for flag, value, least in counts])
    check_numbers([(flag, value, least, most) for flag, value, least in counts])


def check_above_zero(numbers: Sequence[tuple[str, float]]) -> None:
    """Raise UsageError for the first option whose number is not finite and above 0."""
    for flag, value in numbers:
        if not 0 < value < math.inf:
            raise UsageError(flag, value, "a finite number above 0")


def check_weights(numbers: Sequence[tuple[str, float]]) -> None:
    """Raise UsageError for the first option whose number is negative or not finite."""
    for flag, value in numbers:
        if not 0 <= value < math.inf:
            raise UsageError(flag, value, "a finite number, 0 or more")


def check_words(words: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
    """Raise UsageError for the first option whose word is none of those it may be."""
    for flag, value, known in words:
        if value not in known:
            raise UsageError(flag, f"{value!r}", f"one of {', '.join(known)}")
