"""A few rows of a large masks file: found by the names of their reads, and read without the others.

Names are looked for in the columns `read_id` and `mate`, some thousand rows at a time; then only the row groups that
hold the rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.draw.read import DrawnRead
from wyr_batch.errors import InputError
from wyr_batch.masks.bases import SEQUENCE, with_bases
from wyr_batch.masks.drawn import drawn_columns, drawn_read
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows


def find_rows(masks: MaskFile, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the rows of some reads, by their number in the file, in its order; and the names that none has.

    Args:
        names: a read's name is that of both its mates; with /1 or /2 it is one of them.
    """
    wanted = set(names)
    ends = ("", "/1", "/2")
    spelled = {name + end for name in names for end in ends} | {name[:-2] for name in names if name.endswith(ends[1:])}
    ids = pa.array(spelled, pa.string())
    numbers: list[int] = []
    found: set[str] = set()
    for rows in masks.rows(["read_id", "mate"]):
        column = rows.column("read_id").cast(pa.string())
        hits = np.flatnonzero(pc.is_in(column, ids).to_numpy(zero_copy_only=False))
        for i in hits.tolist():
            name, mate = column[i].as_py(), rows.column("mate")[i].as_py()
            stem = name.removesuffix(f"/{mate}") if mate else name  # FASTQ files may have the mates' numbers in names
            if here := {name, stem, f"{stem}/{mate}"} & wanted:
                numbers.append(rows.first + i)
                found |= here
    return numbers, [name for name in dict.fromkeys(names) if name not in found]


def rows_at(masks: MaskFile, numbers: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[MaskRows]:
    """Yield rows one by one, by their numbers in ascending order; `columns`: only these. Raises: InputError."""
    at = 0
    for rows in masks.rows(columns, near=numbers):
        while at < len(numbers) and (i := numbers[at] - rows.first) < len(rows):
            yield rows.part(i, i + 1)
            at += 1


def drawn_reads(
    masks: MaskFile,
    numbers: Sequence[int],
    reads: Sequence[str] = (),
    rank: str | None = None,
    *,
    without_bases: Callable[[InputError], None],
) -> Iterator[DrawnRead]:
    """Yield rows as reads to draw, by their numbers in ascending order.

    Args:
        reads: where the inputs lie now; then it is an error if they are not those of the rows.
        rank: the one whose mask is drawn; None: the mask of all.
        without_bases: told once why the bases are not to be had; the reads from there on are drawn without them.
    Raises: InputError.
    """
    own = SEQUENCE in masks
    columns = [name for name in drawn_columns(masks.ranks, rank) if name in masks]
    bases = None if own else _bases_at(masks, numbers, reads)
    for rows in rows_at(masks, numbers, [*columns, *([SEQUENCE] if own else [])]):
        text = rows.texts(SEQUENCE)[0] or "" if own else ""
        if bases is not None:
            try:
                text = next(bases)
            except InputError as error:
                if reads:
                    raise
                without_bases(error)
                bases = None
        yield drawn_read(rows, 0, text, masks.ranks, rank, masks.kind)


def _bases_at(masks: MaskFile, numbers: Sequence[int], reads: Sequence[str]) -> Generator[str, None, None]:
    """Yield the bases of rows, which are compared with the reads of the inputs up to the last of them."""
    at = 0
    for rows, bases in with_bases(masks, reads, ()):
        while at < len(numbers) and (i := numbers[at] - rows.first) < len(rows):
            yield bases.of(i)
            at += 1
        if at == len(numbers):
            return
