"""Counters of a run."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wyr_batch.pipeline import Explained
from wyr_batch.rows import STATUSES


@dataclass
class RunStats:
    """What went through a run so far. Stage seconds overlap, so they add up to more than the wall time."""

    n_reads: int = 0
    n_bases: int = 0
    n_tokens: int = 0
    n_padded_tokens: int = 0
    n_run_tokens: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    stage_s: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "explain": 0.0, "write": 0.0})
    started: float = field(default_factory=time.perf_counter)
    wall_s: float = 0.0

    def count(self, done: Explained, status: np.ndarray[Any, np.dtype[np.int8]]) -> None:
        """Add one chunk's results; `status` int8 [n] indexes `STATUSES`."""
        work = done.work
        self.n_reads += len(work.chunk)
        self.n_bases += work.chunk.n_bases
        self.n_tokens += len(work.tokens.ids)
        self.n_padded_tokens += done.n_padded_tokens
        self.n_run_tokens += done.n_run_tokens
        for index, n in enumerate(np.bincount(status, minlength=len(STATUSES))):
            if n:
                self.statuses[STATUSES[index]] += int(n)

    def finish(self) -> None:
        self.wall_s = time.perf_counter() - self.started

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that were padding."""
        return 1 - self.n_run_tokens / self.n_padded_tokens if self.n_padded_tokens else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the run summary; `statuses` add up to `reads`."""
        if sum(self.statuses.values()) != self.n_reads:
            raise AssertionError(f"statuses {dict(self.statuses)} do not add up to {self.n_reads} reads")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "schema_version": 1,
            "reads": self.n_reads,
            "bases": self.n_bases,
            "tokens": self.n_tokens,
            "statuses": dict(self.statuses),
            "padding_share": round(self.padding_share, 4),
            "wall_s": round(self.wall_s, 3),
            "reads_per_s": round(self.n_reads / self.wall_s, 1) if self.wall_s else None,
            "stage_s": {stage: round(seconds, 3) for stage, seconds in self.stage_s.items()},
            "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
        }

    def closing_line(self) -> str:
        """Return the last line of a run."""
        wall = max(self.wall_s, 1e-9)
        other = ", ".join(f"{n:,} {name}" for name, n in sorted(self.statuses.items()) if name != "ok")
        return (
            f"{self.n_reads:,} reads ({self.n_bases / 1e6:,.2f} Mbases) in {self.wall_s:.1f} s: "
            f"{self.n_reads / wall:,.0f} reads/s, {self.n_tokens / wall:,.0f} tokens/s, "
            f"{100 * self.padding_share:.1f} % padding" + (f"; {other}" if other else "")
        )
