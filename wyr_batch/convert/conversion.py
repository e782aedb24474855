"""What every format is given, and what it says it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
