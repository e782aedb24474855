"""Records and their masks in scratch files: BAM without names, bases and qualities, for samtools to sort."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pysam
from pysam.utils import SamtoolsError

from wyr_batch.aligned.genome import Genome
from wyr_batch.checks.files import shown_path
from wyr_batch.errors import OutputError
from wyr_batch.tokens.windows import Float32s

SORT_MEMORY = "256M"
_TAG = "wm"


@contextmanager
def scratch_bam(path: Path, genome: Genome) -> Iterator[Any]:
    """Open a scratch file to write. Raises: OSError."""
    header = pysam.AlignmentHeader.from_references(list(genome.names), genome.lengths.tolist())
    with pysam.AlignmentFile(os.fspath(path), "wb", header=header, format_options=["level=1"]) as file:
        yield file


def strip(record: Any, values: Float32s | None, name: str | None = None) -> Any:
    """Return a record with nothing but its place, CIGAR, flag and a mask, float32; `name`: instead of its own."""
    if name is not None:
        record.query_name = name
    record.query_sequence = None
    record.set_tags([] if values is None else [(_TAG, array("f", values.tobytes()))])
    return record


def values_of(record: Any) -> Float32s:
    """Return the mask of a record of a scratch file, float32."""
    return np.array(record.get_tag(_TAG), np.float32)


def sort_scratch(path: Path, *, by_name: bool = False) -> Path:
    """Return the file with its records sorted; the other one is removed. Raises: OutputError."""
    result = path.with_suffix(".sorted.bam")
    words = [*(["-n"] if by_name else []), "-m", SORT_MEMORY, "-l", "1"]
    paths: list[str | Path] = ["-T", path.with_suffix(""), "-o", result, path]
    sort: Any = pysam.sort
    try:
        sort(*words, *map(os.fsencode, paths))  # as bytes: a folder's name may be no UTF-8
    except SamtoolsError as error:
        got, expected = f"'{str(error).strip()}' from samtools sort", "a folder with space"
        raise OutputError(shown_path(path.parent.parent), got, expected, "Make room, or name another.") from None
    path.unlink()
    return result


def read_scratch(path: Path) -> Iterator[Any]:
    """Yield the records of a scratch file."""
    with pysam.AlignmentFile(os.fspath(path), "rb", check_sq=False) as file:
        yield from file.fetch(until_eof=True)
