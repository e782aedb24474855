"""What a command says while it runs: stderr only, a bar on a terminal, else one line a minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from wyr_batch.stats import RunStats

logger = logging.getLogger("wyr_batch")
LINE_EVERY_S = 60.0


def set_up(quiet: bool, verbose: bool, log_file: str | None) -> None:
    """Send the package's messages to stderr, and to a file if asked."""
    logger.handlers.clear()
    logger.setLevel(logging.DEBUG)
    stream = logging.StreamHandler(sys.stderr)
    stream.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    stream.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(stream)
    if log_file:
        file = logging.FileHandler(log_file)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)


class Progress:
    """Shows how far a run is. `update` is cheap enough to call for every chunk.

    Args:
        share: returns the share of the input read, or None where it is unknown.
        visible: False shows nothing (--quiet).
    """

    def __init__(self, share: Callable[[], float | None], visible: bool) -> None:
        self._share = share
        self._visible = visible
        self._bar = visible and sys.stderr.isatty()
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

    def update(self, stats: RunStats) -> None:
        """Say what has been written, and where chunks wait."""
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        share = self._share()
        here = stats.here
        rates = f"{here.n_reads / elapsed:,.0f} reads/s, {here.n_bases / elapsed / 1e6:.2f} Mbases/s"
        text = f"{stats.n_reads:,} reads, {rates}"
        if self._bar:
            self._rich.update(self._task, completed=share, total=None if share is None else 1.0, description=text)
        elif self._visible and now - self._last >= LINE_EVERY_S:
            self._last = now
            left = f", {elapsed * (1 - share) / share / 60:.0f} min left" if share else ""
            waiting = ", ".join(f"{name} {fill:.1f}" for name, fill in stats.queue_fill.items())
            logger.info("%s%s%s", text, left, f"; chunks waiting: {waiting}" if waiting else "")
