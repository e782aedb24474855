"""bigWig files, through libBigWig."""

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

_AT_ONCE = 50_000


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
        file.addHeader(list(zip(genome.names, genome.lengths.tolist(), strict=True)))

        def add(runs: Runs) -> None:
            nonlocal n_bases
            for i, part in runs.by_sequence():
                for start in range(part.start, part.stop, _AT_ONCE):
                    some = slice(start, min(start + _AT_ONCE, part.stop))
                    names = [genome.names[i]] * (some.stop - some.start)
                    starts, ends, values = (a[some].tolist() for a in (runs.starts, runs.ends, runs.values))
                    file.addEntries(names, starts, ends=ends, values=list(map(float, values)))
            n_bases += int((runs.ends - runs.starts).sum())

        try:
            yield add
        finally:
            file.close()
        # libBigWig says nothing of a disk that was full.
        written = _open(library, partial, "r", path)
        n_written = written.header()["nBasesCovered"]
        written.close()
        if n_written != n_bases:
            got = f"{n_written:,} bases in the file that was written"
            raise OutputError(shown_path(path), got, f"{n_bases:,}", "Make room, or name another place.")


def _open(library: Any, partial: Path, mode: str, path: Path) -> Any:
    try:
        return library.open(os.fspath(partial), mode)
    except (RuntimeError, UnicodeEncodeError) as error:
        raise OutputError(shown_path(path), f"'{error}'", "a place where bigWig can be written") from None
