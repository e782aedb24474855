"""What every format is given, and what it says it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wyr_batch.errors import InputError, UsageError
from wyr_batch.masks.file import MaskFile


@dataclass(frozen=True, slots=True)
class Conversion:
    """One masks file to be written as another format.

    Attributes:
        masks: the file.
        reads: where its inputs lie now, as --reads names them; empty: where they lay.
        output: already checked; `-` is standard output. Nothing may lie under this name before it is whole.
    """

    masks: MaskFile
    reads: tuple[str, ...]
    output: Path


@dataclass(frozen=True, slots=True)
class Written:
    """What went into an output: reads taken from the masks file, records written, and what those are called."""

    n_reads: int
    n_records: int
    what: str


def mask_column(masks: MaskFile, rank: str | None) -> str:
    """Return the column of a rank's masks; None: that of all ranks together. Raises: UsageError, InputError."""
    if rank is None:
        return "mask"
    if rank not in masks.ranks:
        raise UsageError("--rank-mask", rank, f"one of {', '.join(masks.ranks)}: the ranks in {masks.shown}")
    if f"mask_{rank}" not in masks:
        raise InputError(
            masks.shown, f"no column 'mask_{rank}'", "the masks of each rank", "Run again with --rank-masks."
        )
    return f"mask_{rank}"
