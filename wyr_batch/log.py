"""What a command says while it runs: stderr only, a bar on a terminal, else one line a minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from wyr_batch.files import reason_of, shown_path, write_error

if TYPE_CHECKING:
    from wyr_batch.stats import RunStats

logger = logging.getLogger("wyr_batch")
LINE_EVERY_S = 60.0


class _Stderr(logging.StreamHandler[TextIO]):
    """Standard error; what it does not take is lost, for there is nowhere to say so."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


class _LogFile(logging.FileHandler):
    """The file of --log. A full disk is said once; the run goes on without the log, and ends with an error.

    Attributes:
        problem: why the log is not whole, None while it is.
    """

    def __init__(self, path: Path) -> None:
        """Raises: OutputError if it cannot be opened."""
        self.path, self.problem = path, None
        try:
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise write_error(path, error) from None

    problem: str | None

    def emit(self, record: logging.LogRecord) -> None:
        if self.problem is None:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        self.problem = (
            f"--log {shown_path(self.path)}: got '{reason_of(error) if isinstance(error, Exception) else error}' while "
            "writing, expected a place with space. The log is not whole; all else is as it would be."
        )
        logger.warning("%s", self.problem)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self.problem = self.problem or str(write_error(self.path, error))


def set_up(quiet: bool, verbose: bool, log_file: Path | None) -> None:
    """Send the package's messages to stderr, and to a file if asked; to the root logger's handlers no more.

    Raises: OutputError if the file cannot be written.
    """
    tear_down()
    file = _LogFile(log_file) if log_file else None
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    stream = _Stderr(sys.stderr)
    stream.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    stream.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(stream)
    if file:
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)


def tear_down() -> str | None:
    """Undo `set_up`; returns why the log file is not whole, None if it is."""
    problem = None
    for handler in list(logger.handlers):
        if isinstance(handler, _Stderr | _LogFile):
            logger.removeHandler(handler)
            handler.close()
            problem = problem or getattr(handler, "problem", None)
    logger.propagate = True
    return problem


class Progress:
    """Shows how far a run is. `update` is cheap enough to call for every chunk.

    Args:
        share: returns the share of the input read, or None where it is unknown.
        visible: False shows nothing (--quiet).
    """

    def __init__(self, share: Callable[[], float | None], visible: bool) -> None:
        self._share = share
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
