"""Which way of several to take on this device: the fastest of those that give what the first one gives.

A kernel is taken where it is right and faster, found out once a process on the device itself; what is taken is said.
`WYR_KERNELS=off` leaves all of them out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Largest difference from the first way, as a share of its largest value: several roundings of the precision.
LIMITS = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
N_TIMED = 5

Way = Callable[..., Any]
Timer = Callable[[Callable[[], Any]], float]

_chosen: dict[tuple[object, ...], str] = {}
_one_at_a_time = threading.Lock()


def wanted() -> bool:
    """Say whether kernels may be used: not switched off, and Triton is installed and can be loaded."""
    if os.environ.get("WYR_KERNELS", "on") == "off" or triton_version() is None:
        return False
    try:
        import triton  # noqa: F401
    except Exception as error:  # a library that it needs
        logger.warning("kernels: Triton cannot be loaded: %s", error)
        return False
    return True


def triton_version() -> str | None:
    """Return the version of Triton, None without it."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def device_name(device: torch.device) -> str:
    """Return the model of a GPU, or what else the device is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def gpu_seconds(work: Callable[[], Any]) -> float:
    """Return how long a GPU takes for some work: the least of several times, after one that does not count."""
    work()
    seconds: list[float] = []
    for _ in range(N_TIMED):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return min(seconds)


def fastest(
    name: str,
    ways: Mapping[str, Way],
    cases: Sequence[Sequence[Any]],
    limit: float,
    key: tuple[object, ...],
    timer: Timer = gpu_seconds,
) -> str:
    """Return the name of the fastest way that is right; the answer to a key is remembered for the process.

    What memory does not suffice to compare is left out, and then nothing is remembered: next time there may be more.

    Args:
        ways: the first is the reference; each returns a tensor or several.
        cases: arguments; all are compared, the first is timed.
        limit: largest difference from the reference, as a share of its largest value.
        key: what the answer depends on: the device, types, sizes.
    """
    with _one_at_a_time:
        key = name, *key
        if key in _chosen:
            return _chosen[key]
        right, is_short = _right(name, ways, cases, limit)
        chosen = _quickest(name, right, cases[0], timer)
        if not is_short:
            _chosen[key] = chosen
        return chosen


def forget() -> None:
    """Measure anew from now on."""
    _chosen.clear()


def _right(
    name: str, ways: Mapping[str, Way], cases: Sequence[Sequence[Any]], limit: float
) -> tuple[dict[str, Way], bool]:
    """Return the ways that give what the first one gives, and whether memory was too short to compare one of them."""
    reference, compute = next(iter(ways.items()))
    right, is_short = {reference: compute}, False
    for other in [way for way in ways if way != reference]:
        try:
            off = max(_difference(ways[other](*case), compute(*case)) for case in cases)
        except Exception as error:  # Triton has many, and so has the driver
            logger.info("%s: %s does not work here: %s", name, other, f"{type(error).__name__}: {error}"[:200])
            is_short |= isinstance(error, torch.OutOfMemoryError)
            continue
        if off <= limit:
            right[other] = ways[other]
        else:
            logger.warning("%s: %s is %.2g off %s, more than %.2g: not used", name, other, off, reference, limit)
    return right, is_short


def _quickest(name: str, ways: Mapping[str, Way], case: Sequence[Any], timer: Timer) -> str:
    reference = next(iter(ways))
    if len(ways) == 1:
        return reference
    seconds = {way: timer(partial(compute, *case)) for way, compute in ways.items()}
    best = min(seconds, key=seconds.__getitem__)
    logger.info("%s: %s, %.2f times as fast as %s", name, best, seconds[reference] / seconds[best], reference)
    return best


def _difference(found: Any, wanted: Any) -> float:
    """Return the largest difference, as a share of the largest value; infinite for what is no number."""
    pairs = [(found, wanted)] if isinstance(found, Tensor) else list(zip(found, wanted, strict=True))
    worst = 0.0
    for one, other in pairs:
        if one.shape != other.shape or one.dtype != other.dtype:
            return float("inf")
        off = (one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-6)
        worst = max(worst, float(torch.nan_to_num(off, nan=float("inf"))))
    return worst
