"""The machine a run is on: the CPUs this process may use, and the memory it keeps.

Threads: the same number for every library that would count by itself. Memory: what a chunk has freed is kept for the
next one, instead of going to the system and coming back page by page. Each chunk's arrays are a few megabytes; glibc
maps such pieces anew each time, and the first touch of every page costs the host side CPU time. Not handled: other C
libraries, which are left alone. Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_PIECE_BYTES, _KEPT_BYTES = 32 << 20, 192 << 20
_DEFAULT_BYTES = 128 << 10  # of both, mallopt(3)


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and its cgroup's quota rounded up."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota_file, period_file in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            words = Path(quota_file).read_text().split()
            if period_file:
                words += Path(period_file).read_text().split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # no such cgroup, or "max": no quota
            continue
        if quota > 0:
            return max(1, min(cpus, -(-quota // period)))
    return cpus


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Give Arrow, which reads and writes, as many threads as a run has; it would take all it sees. Put back at the end.

    An engine's library gets its number where it is opened.
    """
    import pyarrow as pa

    before = pa.cpu_count(), pa.io_thread_count()
    pa.set_cpu_count(n_threads)
    pa.set_io_thread_count(max(2, n_threads))
    try:
        yield
    finally:
        pa.set_cpu_count(before[0])
        pa.set_io_thread_count(before[1])


def keep_freed_memory() -> None:
    """Tell glibc to keep pieces of up to 32 MB, and 192 MB of what is free, for this process."""
    _set_thresholds(_LARGEST_PIECE_BYTES, _KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Undo `keep_freed_memory` and give the system all that is free now: memory has run out."""
    _set_thresholds(_DEFAULT_BYTES, _DEFAULT_BYTES)
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(mmap_bytes: int, trim_bytes: int) -> None:
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_bytes)
