"""How many threads: what this process may use, and the same for every library that would count by itself."""

from __future__ import annotations

import os
from pathlib import Path


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


def limit_threads(n_threads: int) -> None:
    """Give the libraries that read and write as many threads as the run has; each would take all it sees.

    The engine's library gets its number where it is opened.
    """
    import pyarrow as pa

    pa.set_cpu_count(n_threads)
    pa.set_io_thread_count(max(2, n_threads))
