"""How far a command is: a bar on a terminal, else one line a minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from wyr_batch.job.stats import RunStats, amount_of

logger = logging.getLogger(__name__)

LINE_EVERY_S = 60.0


class Bar:
    """Shows the share that is done: a bar on a terminal, else one line a minute.

    Args:
        visible: False shows nothing (--quiet).
    """

    def __init__(self, visible: bool) -> None:
        self._visible = visible
        self._bar = visible and sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._rich = RichProgress(
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._rich.add_task("", total=1.0)
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._rich.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, above 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def show(self, share: float | None, text: str, more: str = "") -> None:
        """Say how far it is.

        Args:
            share: None where it is unknown.
            more: goes to the end of a line, and is left out beside a bar.
        """
        now = time.monotonic()
        if self._bar:
            self._rich.update(self._task, completed=share, total=None if share is None else 1.0, description=text)
        elif self._visible and now - self._last >= LINE_EVERY_S:
            self._last = now
            left = f", {self.elapsed_s * (1 - share) / share / 60:.0f} min left" if share else ""
            logger.info("%s%s%s", text, left, more)


class Progress(Bar):
    """Shows how far a run is. `update` is cheap enough to call for every chunk.

    Args:
        share: returns the share of the input read, or None where it is unknown.
        visible: False shows nothing (--quiet).
    """

    def __init__(self, share: Callable[[], float | None], visible: bool) -> None:
        super().__init__(visible)
        self._share = share

    def update(self, stats: RunStats) -> None:
        """Say what has been written, and where chunks wait."""
        here, rows = stats.this_run, stats.kind.rows
        rates = f"{here.n_reads / self.elapsed_s:,.0f} {rows}/s, {amount_of(stats.kind, here, self.elapsed_s)}/s"
        waiting = ", ".join(f"{name} {fill:.1f}" for name, fill in stats.queue_fill.items())
        more = f"; chunks waiting: {waiting}" if waiting else ""
        self.show(self._share(), f"{stats.n_reads:,} {rows}, {rates}", more)
