"""bigWig files, through libBigWig.

Where the library cannot write, it says nothing, or waits for ever. So there is a look at the space before each piece,
and at the file afterwards. Not handled: a quota, which is no lack of space.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wyr_batch.aligned.genome import Genome
from wyr_batch.aligned.runs import Runs
from wyr_batch.checks.files import shown_path, whole_file
from wyr_batch.errors import MissingExtraError, OutputError

_AT_ONCE, _SPARE_BYTES = 50_000, 64 << 20
_ADVICE = "Make room, or name another place."


def import_pybigwig() -> Any:
    """Return the module. Raises: MissingExtraError."""
    try:
        return importlib.import_module("pyBigWig")
    except ImportError:
        raise MissingExtraError("bigWig output", "pyBigWig", "bigwig") from None


@contextmanager
def bigwig_output(path: Path, genome: Genome) -> Iterator[Callable[[Runs], None]]:
    """Give a function that takes runs in order; the file appears at the end of the `with`, or not at all.

    Raises: OutputError if it cannot be written; MissingExtraError.
    """
    library, n_bases = import_pybigwig(), 0
    with whole_file(path) as partial:
        file = _open(library, partial, "w", path)

        def add(runs: Runs) -> None:
            nonlocal n_bases
            for i, part in runs.by_sequence():
                for start in range(part.start, part.stop, _AT_ONCE):
                    _check_space(partial, path)
                    some = slice(start, min(start + _AT_ONCE, part.stop))
                    names = [genome.names[i]] * (some.stop - some.start)
                    starts, ends, values = (a[some].tolist() for a in (runs.starts, runs.ends, runs.values))
                    file.addEntries(names, starts, ends=ends, values=list(map(float, values)))
            n_bases += int((runs.ends - runs.starts).sum())

        try:
            file.addHeader(list(zip(genome.names, genome.lengths.tolist(), strict=True)))
            yield add
        except RuntimeError as error:
            raise OutputError(shown_path(path), f"'{error}'", "a place with space", _ADVICE) from None
        finally:
            file.close()
        written = _open(library, partial, "r", path)
        n_written = written.header()["nBasesCovered"]
        written.close()
        if n_written != n_bases:
            got = f"{n_written:,} bases in the file that was written"
            raise OutputError(shown_path(path), got, f"{n_bases:,}", _ADVICE)


def _open(library: Any, partial: Path, mode: str, path: Path) -> Any:
    if not _is_utf8(partial):  # the library would crash
        raise OutputError(shown_path(path), "a path that is not UTF-8", "one that is", "Write to another folder.")
    try:
        return library.open(os.fspath(partial), mode)
    except RuntimeError as error:
        raise OutputError(shown_path(path), f"'{error}'", "a place where bigWig can be written") from None


def _check_space(partial: Path, path: Path) -> None:
    """Raise OutputError unless there is as much space as the file has taken, which the end of it stays below."""
    status = os.statvfs(partial)
    free, needed = status.f_bavail * status.f_frsize, partial.stat().st_size + _SPARE_BYTES
    if free < needed:
        got, expected = f"{free >> 20:,} MB of free space", f"{needed >> 20:,} MB"
        raise OutputError(shown_path(path), got, expected, _ADVICE)


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
