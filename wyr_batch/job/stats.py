"""Counters of a run."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.draw.kinds import READS, Kind
from wyr_batch.explain.step import Explained
from wyr_batch.rows.columns import STATUSES
from wyr_batch.rows.counts import Counts


def counts_of(done: Explained, status: npt.NDArray[np.int8]) -> Counts:
    """Return the counts of one chunk's results; `status` int8 [n] indexes `STATUSES`."""
    work = done.work
    n_each = np.bincount(status, minlength=len(STATUSES))
    return Counts(
        n_reads=len(work.chunk),
        n_bases=work.chunk.n_bases,
        n_tokens=len(work.tokens.ids),
        statuses=Counter({STATUSES[i]: int(n) for i, n in enumerate(n_each) if n}),
        failures=Counter(done.failed.values()),
    )


def amount_of(kind: Kind, counts: Counts, seconds: float = 1.0) -> str:
    """Return how much was in rows, or in those of a second, in words: bases, residues, or the tokens of texts."""
    if kind is READS:
        return f"{counts.n_bases / seconds / 1e6:,.2f} Mbases"
    n, name = (counts.n_tokens / seconds, "tokens") if kind.is_text else (counts.n_bases / seconds, kind.letters)
    return f"{n / 1e6:,.2f} million {name}" if n >= 1e6 else f"{n:,.0f} {name}"


@dataclass
class RunStats:
    """What went through a run so far. Stage seconds overlap, so they add up to more than the wall time.

    Attributes:
        kind: of the inputs; names of counts say "reads" and "bases" whatever it is.
        counts: of the whole output, with what an earlier run had finished.
        n_resumed: reads that an earlier run had finished.
        n_repeats: reads of this run that were not computed, for an earlier one of their chunk has the same tokens.
        waiting: per queue, the sum of its fill whenever the engine took from it, in chunks.
    """

    runtime: str = ""
    device: str = ""
    dtype: str = ""
    kind: Kind = READS
    counts: Counts = field(default_factory=Counts)
    n_resumed: int = 0
    this_run: Counts = field(default_factory=Counts)
    n_repeats: int = 0
    n_padded_tokens: int = 0
    n_run_tokens: int = 0
    stage_s: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "explain": 0.0, "write": 0.0})
    waiting: Counter[str] = field(default_factory=Counter)
    n_chunks: int = 0
    started: float = field(default_factory=time.perf_counter)
    wall_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the `with` to a stage; from any thread."""
        start = time.perf_counter()
        try:
            yield
        finally:  # also where what is timed ends by an exception, as the last part of a generator does
            with self._lock:
                self.stage_s[stage] += time.perf_counter() - start

    def look_at(self, fill: Mapping[str, int]) -> None:
        """Take down how many chunks wait in each queue; from any thread."""
        with self._lock:
            self.n_chunks += 1
            self.waiting.update(fill)

    def resume(self, counts: Counts) -> None:
        """Begin with what an earlier run finished."""
        self.counts += counts
        self.n_resumed = counts.n_reads

    def add(self, counts: Counts, n_run_tokens: int, n_padded_tokens: int, n_repeats: int) -> None:
        """Add what has been written; the tokens are those of `Explained`, the repeats those of `Work`."""
        self.counts += counts
        self.this_run += counts
        self.n_run_tokens += n_run_tokens
        self.n_padded_tokens += n_padded_tokens
        self.n_repeats += n_repeats

    @property
    def n_reads(self) -> int:
        return self.counts.n_reads

    def finish(self) -> None:
        self.wall_s = time.perf_counter() - self.started

    def rates(self) -> dict[str, Any]:
        """Return how fast this run has been up to now, for the footer's `wyr_rates`; empty if it explained nothing."""
        here, seconds = self.this_run, time.perf_counter() - self.started
        if not here.n_reads or seconds <= 0:
            return {}
        return {
            "reads": here.n_reads,
            "bases": here.n_bases,
            "tokens": here.n_tokens,
            "seconds": round(seconds, 3),
            "reads_per_s": round(here.n_reads / seconds, 1),
            "tokens_per_s": round(here.n_tokens / seconds, 1),
            "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that were padding."""
        return 1 - self.n_run_tokens / self.n_padded_tokens if self.n_padded_tokens else 0.0

    @property
    def n_failed(self) -> int:
        """Reads of status failed, in the whole output."""
        return self.counts.statuses["failed"]

    def as_json(self) -> dict[str, Any]:
        """Return the run summary; `statuses` add up to `reads`."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "schema_version": 1,
            **self.counts.as_json(),
            "runtime": self.runtime,
            "device": self.device,
            "dtype": self.dtype,
            "reads_resumed": self.n_resumed,
            "reads_repeated": self.n_repeats,
            "padding_share": round(self.padding_share, 4),
            "wall_s": round(self.wall_s, 3),
            "reads_per_s": round(self.this_run.n_reads / self.wall_s, 1) if self.wall_s else None,
            "stage_s": {stage: round(seconds, 3) for stage, seconds in self.stage_s.items()},
            "queue_fill": {queue: round(fill, 2) for queue, fill in self.queue_fill.items()},
            "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
        }

    @property
    def queue_fill(self) -> dict[str, float]:
        """Mean fill of each queue in chunks: where chunks wait, the stage behind is the slow one."""
        return {queue: n / max(self.n_chunks, 1) for queue, n in self.waiting.items()}

    def closing_line(self) -> str:
        """Return the last line of a run."""
        wall, here = max(self.wall_s, 1e-9), self.this_run
        parts = [f"{n:,} {name}" for name, n in sorted(self.counts.statuses.items()) if name != "ok"]
        if self.n_resumed:
            parts.insert(0, f"{self.n_resumed:,} of them finished before")
        rows = self.kind.rows
        return (
            f"{self.n_reads:,} {rows} ({amount_of(self.kind, self.counts)}) in {self.wall_s:.1f} s: "
            f"{here.n_reads / wall:,.0f} {rows}/s, {here.n_tokens / wall:,.0f} tokens/s, "
            f"{100 * self.padding_share:.1f} % padding" + (f"; {', '.join(parts)}" if parts else "")
        )
