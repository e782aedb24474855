"""All inputs of a run as one stream of chunks, from where an earlier run ended.

files   -> ReadChunk      one after the other, or as pairs        open.py, pairs.py
skip    -> ReadChunk      reads that an earlier run explained     digest.py
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wyr_batch.checks.files import look_at, reason_of, shown_path
from wyr_batch.errors import OtherReadsError, UsageError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.digest import ReadsDigest
from wyr_batch.reads.open import Opener, OpenInput, open_reads
from wyr_batch.reads.pairs import interleaved_chunks, paired_chunks
from wyr_batch.reads.source import open_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is read, and how.

    Attributes:
        paths: as the user named them; `-` is standard input.
        paired: they are mates, two files at a time; interleaved: consecutive reads are mates.
        max_reads: None takes all.
        qualities: keep those of the bases; an input without is an error.
        open_input: opens one, of the kind that is meant; None: `open_reads`. See `texts.open.opener`.
    """

    paths: tuple[str, ...]
    paired: bool = False
    interleaved: bool = False
    max_reads: int | None = None
    qualities: bool = False
    open_input: Opener | None = None


def input_list(files: Sequence[str], listed_in: Path | None) -> tuple[str, ...]:
    """Return the inputs named by FILES and, one a line, by --infile-list. Raises: UsageError.

    A byte order mark and carriage returns at the ends of lines do not count; names may be any bytes.
    """
    if listed_in is None:
        return tuple(files)
    try:
        lines = listed_in.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        got = f"{reason_of(error)!r} for {shown_path(listed_in)}"
        raise UsageError("--infile-list", got, "a text file", "Check the path.") from None
    names = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    if odd := next((name for name in names if "\0" in name), None):
        raise UsageError("--infile-list", f"{shown_path(odd[:40])!r} in {listed_in}", "a name a line, as text")
    return (*files, *names)


def check_distinct(inputs: Sequence[str], paired: bool) -> None:
    """Say which inputs are given twice. Raises: UsageError for a pair of one file, whose mates would be the reads."""
    known: dict[tuple[int, int], str] = {}
    for i, path in enumerate(inputs):
        status = look_at(path) if path != "-" else None
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            continue
        file = (status.st_dev, status.st_ino)
        if paired and i % 2 and known.get(file) == inputs[i - 1]:
            raise UsageError("--paired", f"{shown_path(path)} as first and as second mates", "two files: R1 R2")
        if file in known:
            logger.warning("%s: given twice (as %s): its reads are rows twice", *map(shown_path, (path, known[file])))
        known[file] = path


class InputWatch:
    """How far the reading is: compressed bytes read of all, over all inputs; and in which file it is."""

    def __init__(self, n_inputs: int, warn: Callable[[str], None] = logger.warning) -> None:
        """
        Args:
            warn: takes what a user should know of an input.
        """
        self.warn = warn
        self._open: list[OpenInput] = []
        self._n_done = 0
        self.n_inputs = n_inputs

    def now_reading(self, reads: Sequence[OpenInput]) -> None:
        """Say which inputs are open now; those before have been read."""
        self._n_done += len(self._open)
        self._open = list(reads)

    @property
    def current(self) -> list[str]:
        """The inputs that are open, as given."""
        return [reads.path for reads in self._open]

    @property
    def share(self) -> float | None:
        """Share of the inputs read, 0 to 1; None where a size is unknown."""
        done = float(self._n_done)
        for reads in self._open:
            if reads.total_bytes is None:
                return None
            done += min(reads.compressed_bytes_read / max(1, reads.total_bytes), 1.0)
        return done / self.n_inputs if self._open else None


def check_readable(path: str, open_input: Opener | None = None) -> None:
    """Raise InputError if an input is not there or of no known format; stdin and pipes are left alone.

    Args:
        open_input: as in `Inputs`.
    """
    status = look_at(path) if path != "-" else None
    if path == "-":
        open_file(path)  # raises if it is closed
    elif status is None or stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
        (open_input or open_reads)(path).close()


def read_chunks(inputs: Inputs, watch: InputWatch) -> Generator[ReadChunk, None, None]:
    """Yield the reads of all inputs in order, up to --max-reads; raises InputError after the last good read."""
    left = inputs.max_reads
    for chunk in _all_chunks(inputs, watch):
        if left is not None and len(chunk) >= left:
            yield chunk.part(0, left)
            return
        yield chunk
        if left is not None:
            left -= len(chunk)


def _all_chunks(inputs: Inputs, watch: InputWatch) -> Iterator[ReadChunk]:
    at_once = 2 if inputs.paired else 1
    for i in range(0, len(inputs.paths), at_once):
        paths = inputs.paths[i : i + at_once]
        with ExitStack() as stack:
            open_input = inputs.open_input or open_reads
            opened = [
                stack.enter_context(open_input(path, place=i, qualities=inputs.qualities, warn=watch.warn))
                for path in paths
            ]
            watch.now_reading(opened)
            if inputs.paired:
                yield from paired_chunks(opened[0], opened[1])
            elif inputs.interleaved:
                yield from interleaved_chunks(opened[0])
            else:
                yield from opened[0]


def read_new(
    inputs: Inputs, watch: InputWatch, n_skip: int = 0, skip_digest: Sequence[int] = (0, 0, 0)
) -> Generator[tuple[ReadChunk, tuple[int, ...]], None, None]:
    """Yield the reads of all inputs but those that have been explained already, with the checksums up to their end.

    Args:
        n_skip: reads to pass over; their checksums must be `skip_digest`.
    Raises: InputError after the last good read; OtherReadsError if the reads passed over are other ones.
    """
    digest = ReadsDigest()
    left = n_skip
    for chunk in read_chunks(inputs, watch):
        if left:
            passed = chunk.part(0, min(left, len(chunk)))
            digest.add(passed)
            left -= len(passed)
            if not left:
                digest.check(skip_digest, n_skip, chunk.source)
            chunk = chunk.part(len(passed), len(chunk))
        if len(chunk):
            yield chunk, digest.add(chunk)
    if left:
        raise OtherReadsError(
            shown_path(inputs.paths[-1]),
            f"the end after {n_skip - left:,} reads",
            f"the {n_skip:,} that were explained before and more",
            "Give the inputs of the resumed run, or start anew with --overwrite.",
        )
