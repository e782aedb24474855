"""Where a command's messages go: standard error, and the file of --log."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

from wyr_batch.checks.files import reason_of, shown_path, write_error

logger = logging.getLogger("wyr_batch")


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
