"""Text outputs: a file that appears whole or not at all, bgzip-compressed if its name says so, or standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pysam

from wyr_batch.checks.files import exists, is_file, reason_of, whole_file, write_error
from wyr_batch.errors import OutputError

STDOUT = Path("-")
_GZIP_NAMES = (".gz", ".bgz")


class TextOutput:
    """Takes text in order, as bytes or as a column of lines."""

    def __init__(self, write: Callable[[Any], object]) -> None:
        self._write = write

    def write(self, text: bytes) -> None:
        """Write some bytes."""
        self._write(text)

    def write_lines(self, lines: pa.Array) -> None:
        """Write a column of text without nulls, each with its own line end, as one piece."""
        if not len(lines):
            return
        wide = pa.types.is_large_string(lines.type)
        offsets = np.frombuffer(lines.buffers()[1], np.int64 if wide else np.int32)
        start, end = offsets[lines.offset], offsets[lines.offset + len(lines)]
        self._write(memoryview(lines.buffers()[2] or b"")[start:end])


@contextmanager
def text_output(path: Path) -> Iterator[TextOutput]:
    """Open an output for text; `-` is standard output.

    A file appears under its name when the `with` ends well, and not at all if it does not. A device or pipe is written
    into.

    Raises: OutputError if it cannot be written; BrokenPipeError if nobody reads standard output any more.
    """
    if path == STDOUT:
        with _said_of_stdout():
            yield TextOutput(sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
    elif is_file(path, OutputError) or not exists(path, OutputError):
        with whole_file(path) as partial, _opened(partial, path.name.endswith(_GZIP_NAMES)) as write:
            yield TextOutput(write)
    else:
        try:
            with path.open("wb") as file:
                yield TextOutput(file.write)
        except OSError as error:
            raise write_error(path, error) from None


@contextmanager
def _opened(path: Path, packed: bool) -> Iterator[Callable[[Any], object]]:
    if packed:
        with pysam.BGZFile(str(path), "wb", None) as blocks:
            yield lambda text: blocks.write(bytes(text))
    else:
        with path.open("wb") as file:
            yield file.write


@contextmanager
def _said_of_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            "standard output", f"'{reason_of(error)}'", "it to take the result", "Redirect it elsewhere."
        ) from None
