"""Labelled reads of a training Parquet as flat arrays: read, checked, and chosen by class and part."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wyr_batch.checks.files import kind_of, look_at, shown_path
from wyr_batch.errors import InputError, UsageError
from wyr_batch.ranks import Rank, check_rank_names
from wyr_batch.reads.chunk import BETWEEN_PAIR
from wyr_batch.texts.open import READS, TEXTS

from .coding import SIX_MER_CODING, Coding, pair_offset
from .prepare import rank_names
from .request import FIXED_COLUMNS, RATIONALE, SECOND, TEXT_COLUMNS
from .sources import SPLITS

NULL = -1
NO_YES = ("no", "yes")  # labels of a rank that is one of several labels
_CODED_AT_ONCE = 4096
_EXPECTED, _ADVICE = "a training Parquet", "Make one with: wyr-batch train prepare"
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledReads:
    """Sequences with one label per rank: reads, proteins or texts.

    Attributes:
        bases: uint8 [N], ASCII letters of all sequences, of texts UTF-8.
        offsets: int64 [n + 1], in bytes.
        labels: int64 [n, R], class within the rank, -1 where unknown.
        in_frame: bool [n], the sequence is a coding strand that starts with a codon.
        headers: FASTA header of each sequence, if they were asked for.
        second: int64 [n], byte of a text where the second one of a pair begins, -1 where there is none; None: there
            are no pairs.
        rationales: for each text int64 [K, 2], spans in code points that people marked; none: there are no such data.
        coding: how they become tokens.
        n_tokens: int64 [n], tokens of each, special ones not counted; None of 6-mers.
    """

    bases: npt.NDArray[np.uint8]
    offsets: Int64s
    labels: Int64s
    in_frame: npt.NDArray[np.bool_]
    headers: tuple[str, ...] = ()
    second: Int64s | None = None
    rationales: tuple[Int64s, ...] = ()
    coding: Coding = SIX_MER_CODING
    n_tokens: Int64s | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64s:
        """Bytes of each, int64 [n]: bases of reads."""
        return np.diff(self.offsets)

    @property
    def has_pairs(self) -> bool:
        return self.second is not None and bool((self.second >= 0).any())

    def text(self, row: int) -> bytes:
        """Return the bytes of one of them."""
        return self.bases[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def take(self, rows: Int64s) -> LabelledReads:
        """Return some of the sequences."""
        pieces = [self.bases[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return replace(
            self,
            bases=np.concatenate(pieces) if pieces else self.bases[:0],
            offsets=np.concatenate(([0], np.cumsum(self.lengths[rows]))),
            labels=self.labels[rows],
            in_frame=self.in_frame[rows],
            headers=tuple(self.headers[row] for row in rows) if self.headers else (),
            second=None if self.second is None else self.second[rows],
            rationales=tuple(self.rationales[row] for row in rows) if self.rationales else (),
            n_tokens=None if self.n_tokens is None else self.n_tokens[rows],
        )

    def sample(self, n: int, seed: int = 0) -> LabelledReads:
        """Return n sequences drawn without replacement (all of them if there are no more)."""
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:n]))

    def coded(self, coding: Coding, source: str | Path = "training Parquet") -> LabelledReads:
        """Return the sequences that a classifier's tokenizer makes tokens of, those counted.

        Texts without a token are left out, and pairs that are longer than the window.

        Args:
            source: names the table in messages.
        Raises: InputError where the tokenizer takes no pairs, or none is left.
        """
        if coding.is_kmers:
            return replace(self, coding=coding, n_tokens=None)
        counts = np.zeros(len(self), np.int64)
        for start in range(0, len(self), _CODED_AT_ONCE):
            part = self.take(np.arange(start, min(start + _CODED_AT_ONCE, len(self))))
            tokens = coding.tokenise(part.bases, part.offsets, part.second)
            if tokens.refused:
                why = tokens.refused[0][1]
                raise InputError(f"{shown_path(source)}, column {SECOND!r}", why, "single texts", "Leave pairs out.")
            counts[start : start + len(part)] = tokens.counts
        keep = counts > 0
        if self.second is not None:
            keep &= (self.second < 0) | (counts <= coding.window_tokens)
        if not keep.any():
            most = f"one of 1 to {coding.window_tokens:,} tokens"
            raise InputError(shown_path(source), "no sequence that the classifier takes", most)
        return replace(self, coding=coding, n_tokens=counts).take(np.flatnonzero(keep))


def choose_ranks(
    table: pa.Table, names: Sequence[str], min_sequences: int, source: str | Path = "training Parquet"
) -> list[Rank]:
    """Return the ranks whose classes have enough sequences outside the test part, labels sorted.

    The finest rank decides; a coarser rank keeps the classes that its members or sequences without a finer
    label need.

    Args:
        source: names the table in messages.
    Raises: UsageError if no class is left; InputError if a rank has no column, or no class.
    """
    table = table.filter(pc.not_equal(table["split"].cast(pa.string()), "test"))
    columns = [_labels(table, name, source).to_pylist() for name in names]
    counts = Counter(label for label in columns[-1] if label is not None)
    kept = {label for label, n in counts.items() if n >= min_sequences}
    if not kept:
        most = max(counts.values(), default=0)
        raise UsageError(
            "--min-sequences",
            min_sequences,
            f"at most {most}, what the largest {names[-1]} of {shown_path(source)} has outside the test part",
        )
    rows = [i for i, label in enumerate(columns[-1]) if label is None or label in kept]
    ranks = [
        Rank(name, tuple(sorted({column[i] for i in rows} - {None})))
        for name, column in zip(names, columns, strict=True)
    ]
    for rank in ranks:
        if not rank.labels:
            raise InputError(f"{shown_path(source)}, column {rank.name!r}", "no label", "some")
    return ranks


def _labels(table: pa.Table, name: str, source: str | Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(
            shown_path(source),
            f"the ranks {', '.join(rank_names(table))}",
            f"{name!r} too, a rank of the classifier",
            "Name the table that it was trained on, or prepare one with its ranks.",
        )
    return table[name].cast(pa.string())


def load_reads(
    table: pa.Table,
    ranks: Sequence[Rank],
    split: str,
    null_share: float = 1.0,
    headers: bool = False,
    source: str | Path = "training Parquet",
) -> LabelledReads:
    """Return the sequences of one split whose finest label is one of the classes, or null.

    Args:
        table: columns header, sequence, split and one per rank (see `prepare.schema_of`).
        null_share: share of the sequences without a finest label to keep, the same ones every time.
        source: names the table in messages.
    Raises: InputError if a rank has no column, or no sequence is left.
    """
    table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    labels = np.empty((len(table), len(ranks)), np.int64)
    for r, rank in enumerate(ranks):
        classes = {label: i for i, label in enumerate(rank.labels)}
        labels[:, r] = [
            NULL if label is None else classes.get(label, -2) for label in _labels(table, rank.name, source).to_pylist()
        ]
    keep = (labels != -2).all(axis=1) & (labels != NULL).any(axis=1)
    is_null = labels[:, -1] == NULL
    keep &= ~is_null | (np.random.default_rng(0).random(len(table)) < null_share)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise InputError(
            f"{shown_path(source)}, split {split!r}",
            f"no sequence of the chosen classes among {len(table)}",
            "at least one",
            "Prepare more sequences, or another share for this part.",
        )
    table = table.take(pa.array(rows))
    sequences, second = _sequences(table)
    offsets = np.concatenate(([0], np.cumsum([len(sequence) for sequence in sequences], dtype=np.int64)))
    bases = np.frombuffer(b"".join(sequences), np.uint8)
    names = table["header"].to_pylist()
    in_frame = np.array(["XM_" not in name for name in names]) & (input_of(table) == READS)
    rationales: tuple[Int64s, ...] = ()
    if RATIONALE in table.column_names:
        found = table[RATIONALE].to_pylist()
        rationales = tuple(np.array(spans or [], np.int64).reshape(-1, 2) for spans in found)
    return LabelledReads(bases, offsets, labels[rows], in_frame, tuple(names) if headers else (), second, rationales)


def _sequences(table: pa.Table) -> tuple[list[bytes], Int64s | None]:
    """Return the sequences as bytes, pairs joined, and the byte where each second text begins, -1 for none."""
    firsts = table["sequence"].cast(pa.large_string()).to_pylist()
    if SECOND not in table.column_names:
        return [text.encode() for text in firsts], None
    seconds = table[SECOND].cast(pa.large_string()).to_pylist()
    pairs = list(zip(firsts, seconds, strict=True))
    joined = [(first if second is None else first + BETWEEN_PAIR + second).encode() for first, second in pairs]
    begins = [-1 if second is None else pair_offset(first) for first, second in pairs]
    return joined, np.array(begins, np.int64)


def input_of(table: pa.Table) -> str:
    """Return what the rows of a training Parquet are: reads, proteins or text."""
    made = (table.schema.metadata or {}).get(b"wyr")
    content = json.loads(made) if made else {}
    return str(content.get("input", READS)) if isinstance(content, dict) else READS


def check_input(table: pa.Table, kind: str, source: str | Path) -> None:
    """Raise InputError unless the rows are what a classifier takes."""
    if (found := input_of(table)) != kind:
        advice = "Prepare it with: wyr-batch train prepare --input"
        raise InputError(shown_path(source), f"a table of {found}", f"{kind}, which the classifier takes", advice)


def is_multi_label(ranks: Sequence[Rank]) -> bool:
    """True if each rank is a label that is there or not, and a sequence may have several."""
    return all(rank.labels == NO_YES for rank in ranks)


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file that `train prepare` wrote. Raises: InputError naming what it is not."""
    status = look_at(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise InputError(shown_path(path), kind_of(status), _EXPECTED, _ADVICE)
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, path)
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        got = " ".join(str(error).split())[:100] if status else "no such file"
        raise InputError(shown_path(path), f"'{got}'", _EXPECTED, _ADVICE) from None
    _check_values(table, path)
    return table


def _check_columns(schema: pa.Schema, path: Path) -> None:
    """Raise InputError unless the columns are those of `prepare.schema_of`, whatever the ranks."""
    shown = shown_path(path)
    for name in FIXED_COLUMNS:
        if name not in schema.names:
            raise InputError(shown, f"no column {name!r}", _EXPECTED, _ADVICE)
    if set(schema.names) <= {*FIXED_COLUMNS, *TEXT_COLUMNS}:
        raise InputError(shown, "no column of labels", "one for each rank", _ADVICE)
    for field in schema:
        kind = field.type
        if pa.types.is_dictionary(kind) and field.name not in ("header", "sequence"):
            kind = kind.value_type
        if schema.names.count(field.name) > 1:
            raise InputError(f"{shown}, column {field.name!r}", "it more than once", "it once", _ADVICE)
        if field.name == RATIONALE and kind == pa.list_(pa.list_(pa.int32())):
            continue
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{shown}, column {field.name!r}", field.type, "text", _ADVICE)
    ranks = [name for name in schema.names if name not in (*FIXED_COLUMNS, *TEXT_COLUMNS)]
    check_rank_names(ranks, shown, InputError)


def _check_values(table: pa.Table, path: Path) -> None:
    """Raise InputError naming the first row without a name, with an unknown split, or with no ASCII sequence."""
    if not len(table):
        raise InputError(shown_path(path), "no row", "labelled sequences", _ADVICE)
    sequence = table["sequence"]
    is_bases = pc.and_(pc.string_is_ascii(sequence), pc.greater(pc.binary_length(sequence), 0))
    if input_of(table) == TEXTS:
        is_bases = pc.is_valid(sequence)  # the first text of a pair may be empty
    for name, is_right, expected in (
        ("header", pc.is_valid(table["header"]), "a name"),
        ("split", pc.is_in(table["split"].cast(pa.string()), pa.array(SPLITS)), f"one of {', '.join(SPLITS)}"),
        ("sequence", pc.fill_null(is_bases, False), "letters"),
    ):
        row = pc.index(is_right, False).as_py()
        if row >= 0:
            got = repr(table[name][row].as_py())[:60]
            raise InputError(f"{shown_path(path)}, column {name!r}, row {row + 1}", got, expected, _ADVICE)
