"""All inputs of a run as one stream of chunks, from where an earlier run ended.

files   -> ReadChunk      one after the other, or as pairs        reads.py, pairs.py
skip    -> ReadChunk      reads that an earlier run explained     manifest.ReadsDigest
plan    -> Work           with the checksums up to its end        pipeline.Planner
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from wyr_batch.bytesource import open_file
from wyr_batch.config import RunConfig
from wyr_batch.errors import OtherReadsError, UsageError
from wyr_batch.manifest import ReadsDigest
from wyr_batch.pairs import interleaved_chunks, paired_chunks
from wyr_batch.pipeline import Planner, Work
from wyr_batch.reads import ReadChunk, Reads, open_reads


def input_list(files: Sequence[str], listed_in: Path | None) -> tuple[str, ...]:
    """Return the inputs named by FILES and, one a line, by --infile-list. Raises: UsageError."""
    if listed_in is None:
        return tuple(files)
    try:
        lines = listed_in.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        got = getattr(error, "strerror", None) or "a file that is no text"
        raise UsageError(f"--infile-list: got {got!r} for {listed_in}, expected a text file. Check the path.") from None
    return (*files, *(line.strip() for line in lines if line.strip()))


class InputWatch:
    """How far the reading is: compressed bytes read of all, over all inputs; and in which file it is."""

    def __init__(self, n_inputs: int) -> None:
        self._open: list[Reads] = []
        self._n_done = 0
        self.n_inputs = n_inputs

    def now_reading(self, reads: Sequence[Reads]) -> None:
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

    @property
    def n_skipped(self) -> int:
        """Secondary and supplementary alignments in the inputs that are open."""
        return sum(reads.n_skipped for reads in self._open)


def check_readable(path: str) -> None:
    """Raise InputError if an input is not there, empty, or of no known format; stdin and pipes are left alone."""
    if path != "-" and Path(path).is_file():
        open_reads(path).close()
    elif path != "-" and not Path(path).exists():
        open_file(path)


def read_chunks(config: RunConfig, watch: InputWatch) -> Generator[ReadChunk, None, None]:
    """Yield the reads of all inputs in order, up to --max-reads; raises InputError after the last good read."""
    left = config.max_reads
    for chunk in _all_chunks(config, watch):
        if left is not None and len(chunk) >= left:
            yield chunk.part(0, left)
            return
        yield chunk
        if left is not None:
            left -= len(chunk)


def _all_chunks(config: RunConfig, watch: InputWatch) -> Iterator[ReadChunk]:
    at_once = 2 if config.paired else 1
    for i in range(0, len(config.inputs), at_once):
        paths = config.inputs[i : i + at_once]
        with ExitStack() as stack:
            opened = [stack.enter_context(open_reads(path)) for path in paths]
            watch.now_reading(opened)
            if config.paired:
                yield from paired_chunks(opened[0], opened[1])
            elif config.interleaved:
                yield from interleaved_chunks(opened[0])
            else:
                yield from opened[0]


def read_new(
    config: RunConfig, watch: InputWatch, n_skip: int = 0, skip_digest: Sequence[int] = (0, 0, 0)
) -> Generator[tuple[ReadChunk, tuple[int, ...]], None, None]:
    """Yield the reads of all inputs but those that have been explained already, with the checksums up to their end.

    Args:
        n_skip: reads to pass over; their checksums must be `skip_digest`.
    Raises: InputError after the last good read; OtherReadsError if the reads passed over are other ones.
    """
    digest = ReadsDigest()
    left = n_skip
    for chunk in read_chunks(config, watch):
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
            f"{config.inputs[-1]}: got the end after {n_skip - left:,} reads, expected the {n_skip:,} that were "
            "explained before and more. Give the inputs of the run that is resumed, or start anew with --overwrite."
        )


def read_work(
    config: RunConfig, planner: Planner, watch: InputWatch, n_skip: int = 0, skip_digest: Sequence[int] = (0, 0, 0)
) -> Generator[Work, None, None]:
    """Yield the work of all reads that `read_new` yields, and raise what it raises."""
    for chunk, digest in read_new(config, watch, n_skip, skip_digest):
        yield planner.plan(chunk, digest)
