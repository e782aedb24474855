"""The bases or texts of the rows: from the column `sequence`, or from the inputs of the run, read again.

Each row is compared with the read it is paired with, by name, mate and length, so that other reads, or the same in
another order, are an error and never a wrong picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from wyr_batch.checks.files import exists, is_file, is_folder
from wyr_batch.errors import InputError
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.reads.chunk import ReadChunk, upper_case
from wyr_batch.reads.records import shown
from wyr_batch.reads.stream import Inputs, InputWatch, read_chunks
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.open import TEXTS, opener
from wyr_batch.tokens.kmers import Uint8s
from wyr_batch.tokens.tokens import Int64s

SEQUENCE = "sequence"
_A_BYTE_EACH, _UTF8 = "latin-1", "utf-8"
_COLUMNS = ("text_column", "pair_column", "id_column")
_ADVICE = "Name the files with --reads, or run again with --sequences."
_NEWER = "Read it with a newer wyr-batch."


@dataclass(frozen=True, slots=True)
class RowBases:
    """Bases of consecutive rows, upper case; or texts, as they are.

    Attributes:
        bases: uint8 [offsets[n]], in `encoding`; offsets: int64 [n + 1], in bytes.
        qualities: uint8 [offsets[n]], ASCII from `!` on; None unless they are asked for.
        encoding: a byte a base, or UTF-8 of texts.
    """

    bases: Uint8s
    offsets: Int64s
    qualities: Uint8s | None = None
    encoding: str = _A_BYTE_EACH

    def of(self, i: int) -> str:
        """Return the bases of row i."""
        return bytes(self.bases[self.offsets[i] : self.offsets[i + 1]]).decode(self.encoding)

    def part(self, start: int, stop: int) -> RowBases:
        """Return rows start to stop of these."""
        offsets = self.offsets[start : stop + 1]
        of_part = slice(int(offsets[0]), int(offsets[-1]))
        qualities = None if self.qualities is None else self.qualities[of_part]
        return RowBases(self.bases[of_part], offsets - offsets[0], qualities, self.encoding)


def inputs_of(masks: MaskFile, reads: Sequence[str] = (), *, qualities: bool = False) -> Inputs:
    """Return the reads that a masks file was made from, as they are to be read again.

    Args:
        reads: where the inputs lie now; none: where they lay then.
        qualities: with those of the bases.
    Raises: InputError if they are not to be had.
    """
    options = masks.run.get("options", {})
    kind = masks.kind.name
    if kind == TEXTS and qualities:
        raise InputError(masks.shown, "masks of texts", "masks of reads, which have qualities")
    paths = tuple(reads) or tuple(masks.footer.get("inputs", ()))
    if not paths and qualities:
        raise InputError(masks.shown, "no inputs in its footer", "those with the qualities", "Name them with --reads.")
    if not paths:
        raise InputError(masks.shown, "no column 'sequence', and no inputs in its footer", "one of them", _ADVICE)
    for path in paths:
        # What was a pipe then has nothing more to give.
        if path == "-" or not (is_file(path) or is_folder(path) or (reads and exists(path))):
            got = "standard input" if path == "-" else f"no file {path}"
            raise InputError(masks.shown, f"{got} among its inputs", "reads that are still there", _ADVICE)
    return Inputs(
        paths,
        paired=bool(options.get("paired", False)),
        interleaved=bool(options.get("interleaved", False)),
        max_reads=options.get("max_reads"),
        qualities=qualities,
        open_input=opener(kind, TextColumns(*(options.get(name) for name in _COLUMNS))),
    )


def with_bases(
    masks: MaskFile, reads: Sequence[str] = (), columns: Iterable[str] | None = None, *, qualities: bool = False
) -> Iterator[tuple[MaskRows, RowBases]]:
    """Yield the rows of a masks file, in order, with their bases.

    Args:
        reads: where the inputs lie now, if not where they lay; not looked at if the file has its sequences.
        columns: only these, and what the comparison needs; None: all.
        qualities: with those of the bases; the inputs are then always read.
    Raises: InputError where a read is not that of its row, or has no qualities.
    """
    own = SEQUENCE in masks and not qualities
    is_text = masks.kind.is_text
    named = None if columns is None else list(dict.fromkeys([*columns, "read_id", "mate", "length", *[SEQUENCE] * own]))
    if own:
        for rows in masks.rows(named):
            yield rows, _from_column(rows, is_text)
        return
    chunks = read_chunks(inputs_of(masks, reads, qualities=qualities), InputWatch(1))
    left: ReadChunk | None = None
    for rows in masks.rows(named):
        done = 0
        while done < len(rows):
            left = left if left is not None and len(left) else next(chunks, None)
            if left is None:
                got = f"the end of the inputs after {rows.first + done:,} reads"
                raise InputError(masks.shown, got, f"a read for each of {masks.n_rows:,} rows", _ADVICE)
            n = min(len(left), len(rows) - done)
            part, chunk = rows.part(done, done + n), left.part(0, n)
            _check_same(part, chunk, masks)
            yield part, _row_bases(chunk.bases, chunk.offsets, is_text, chunk.qualities)
            left, done = left.part(n, len(left)), done + n


def bases_of(masks: MaskFile, wanted: Set[int], reads: Sequence[str] = ()) -> dict[int, str]:
    """Return the bases of a few rows, by their number in the file. Raises: as `with_bases`."""
    found: dict[int, str] = {}
    last = max(wanted, default=-1)
    for rows, bases in with_bases(masks, reads, ()):
        here = wanted & set(range(rows.first, rows.first + len(rows)))
        found |= {i: bases.of(i - rows.first) for i in here}
        if rows.first + len(rows) > last:
            break
    return found


def _from_column(rows: MaskRows, is_text: bool) -> RowBases:
    column = rows.column(SEQUENCE)
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False), out=offsets[1:])
    joined = "".join(text or "" for text in column.to_pylist()).encode(_UTF8 if is_text else _A_BYTE_EACH, "replace")
    return _row_bases(np.frombuffer(joined, np.uint8), offsets, is_text)


def _row_bases(bases: Uint8s, offsets: Int64s, is_text: bool, qualities: Uint8s | None = None) -> RowBases:
    return RowBases(bases if is_text else upper_case(bases), offsets, qualities, _UTF8 if is_text else _A_BYTE_EACH)


def _check_same(rows: MaskRows, chunk: ReadChunk, masks: MaskFile) -> None:
    """Raise InputError unless each read has the name, mate and length of its row."""
    ids = rows.column("read_id")
    same = (
        pc.equal(ids, chunk.ids).to_numpy(zero_copy_only=False)
        & (rows.numbers("mate") == chunk.mates)
        & (rows.lengths == chunk.lengths)
    )
    if same.all():
        return
    i = int(np.argmin(same))
    unit = "bp" if chunk.letters is None else "characters"
    raise InputError(
        f"{chunk.source}, read {shown(chunk.ids[i].as_py())}, record {chunk.first_record + i}",
        f"mate {chunk.mates[i]} of {chunk.lengths[i]:,} {unit}",
        f"{shown(ids[i].as_py())}, mate {rows.numbers('mate')[i]} of {rows.lengths[i]:,} {unit}, as in row "
        f"{rows.first + i + 1:,} of {masks.shown}",
        "Name with --reads the files that these masks were made from.",
    )
