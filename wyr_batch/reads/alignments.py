"""BAM and CRAM: a thread unpacks into a pipe, pysam reads it; so pipes and files are one case."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from wyr_batch.errors import MissingExtraError
from wyr_batch.reads.chunk import columns_from
from wyr_batch.reads.records import Columns, no_qualities
from wyr_batch.reads.sam import mate_from_flag
from wyr_batch.reads.source import CUT, ByteSource, DamagedStream, Problem

_BATCH_READS, _BATCH_BASES = 1024, 4_000_000
_ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")
_NO_REFERENCE = (
    "If the file is whole, its reference is missing: set REF_PATH to a folder of its sequences by their MD5, as "
    "samtools' seq_cache_populate.pl makes, or convert the file to BAM (samtools view -b -T reference.fa)."
)
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class Alignments:
    """The primary records of a BAM or CRAM, as columns; with `qualities`, a read without any is a problem.

    Attributes:
        n_records: met so far.
        n_skipped: of them secondary or supplementary.
        n_escaped: names with bytes that are no UTF-8.
    """

    def __init__(self, source: ByteSource, form: str, block_bytes: int, qualities: bool = False) -> None:
        self._source, self._form, self._block_bytes, self._qualities = source, form, block_bytes, qualities
        self._failure: Exception | None = None
        self._problem: Problem | None = None
        self.n_records = self.n_skipped = self.n_escaped = 0

    def columns(self) -> Generator[Columns, None, None]:
        """Yield the good records, some hundred at a time; what ended them early is said by `problem`."""
        pysam = _import_pysam()
        read_end, write_end = os.pipe()
        pump = threading.Thread(target=self._pump, args=(write_end,), daemon=True)
        pump.start()
        try:
            with open(read_end, "rb") as pipe:
                try:
                    with quiet_pysam():
                        alignments = pysam.AlignmentFile(pipe, "r", check_sq=False)
                except (OSError, ValueError) as error:
                    self._failure = error
                else:
                    with alignments:
                        records = alignments.fetch(until_eof=True)
                        while not self._failure and not self._problem:
                            columns, at_end = self._batch(records)
                            yield columns
                            if at_end:
                                break
        finally:
            pump.join(timeout=1)  # it ends at the closed pipe, unless it waits for a stdin that says nothing

    def _batch(self, records: Any) -> tuple[Columns, bool]:
        """Return up to a batch of reads, and whether the input is over."""
        names: list[str] = []
        mates: list[int] = []
        sequences: list[bytes] = []
        qualities: list[bytes] | None = [] if self._qualities else None
        n_bases = 0
        record = None
        try:
            with quiet_pysam():
                for record in itertools.islice(records, _BATCH_READS):
                    if record.is_secondary or record.is_supplementary:
                        self.n_skipped += 1
                    else:
                        name = record.query_name or "*"
                        if qualities is not None:
                            found = record.get_forward_qualities()
                            if found is None and record.query_length:
                                self._problem = no_qualities(name)
                                break
                            qualities.append((np.array(found or [], np.uint8) + np.uint8(33)).tobytes())
                        self.n_escaped += "\\x" in name and _ESCAPED.search(name) is not None
                        names.append(name)
                        mates.append(mate_from_flag(record.flag))
                        sequences.append((record.get_forward_sequence() or "").encode("ascii"))
                        n_bases += len(sequences[-1])
                    self.n_records += 1
                    if n_bases >= _BATCH_BASES:
                        break
        except (OSError, ValueError) as error:
            self._failure = error
        return columns_from(names, mates, sequences, qualities), record is None

    def _pump(self, write_end: int) -> None:
        try:
            with open(write_end, "wb", buffering=0) as pipe:
                while block := self._source.read(self._block_bytes):
                    view = memoryview(block)
                    while view:
                        view = view[pipe.write(view) :]
        except (DamagedStream, BrokenPipeError):
            pass  # the source keeps its damage; a closed pipe means that nobody wants more

    def problem(self) -> Problem | None:
        """Return what ended the records early, if anything did."""
        source = self._source
        if self._problem:
            return self._problem
        if source.damage:
            return source.damage.problem
        if self._failure:
            got = f"an unreadable record ({self._failure})"
            return Problem(None, -1, got, f"{self._form} data", advice_on(self._form))
        if self._form == "BAM" and source.compression == "bgzip" and not source.tail.endswith(_BGZF_END):
            return Problem(None, -1, "the end of the file without the BGZF end marker", "the marker")
        if self._form == "CRAM" and source.compression == "none" and b"\xe0EOF" not in source.tail:
            return Problem(None, -1, "the end of the file without the CRAM end marker", "the marker")
        return None


def advice_on(form: str) -> str:
    """Return what to do about a record of a BAM, CRAM or SAM that htslib cannot read."""
    return _NO_REFERENCE if form == "CRAM" else CUT


def _import_pysam() -> Any:
    """Return pysam; other formats are read without it."""
    try:
        import pysam
    except ImportError:
        raise MissingExtraError("BAM and CRAM", "pysam", "cpu") from None
    return pysam


@contextmanager
def quiet_pysam() -> Iterator[None]:
    """What htslib would print is in our own messages, and names are escaped as in text formats.

    Both settings are global, so they are put back at once.
    """
    import pysam
    from pysam.libcutils import set_encoding_error_handler

    level = pysam.set_verbosity(0)
    handler = set_encoding_error_handler("backslashreplace")
    try:
        yield
    finally:
        pysam.set_verbosity(level)
        set_encoding_error_handler(handler)
