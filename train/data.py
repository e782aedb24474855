"""Labelled reads as flat arrays, and training batches cut from them.

A batch is a function of (seed, step) alone, so an interrupted training goes on with the very batches it would
have seen. All reads of a batch are cut to one random length: hardly any padding, and every length is learnt.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wyr_batch.errors import InputError, UsageError
from wyr_batch.files import kind_of, look_at, shown_path
from wyr_batch.ranks import Rank, check_rank_names
from wyr_batch.tokens import CLS_ID, PAD_ID, TOKEN_BP, tokenise

from .prepare import FIXED_COLUMNS, SPLITS, rank_names

NULL = -1
_EXPECTED, _ADVICE = "expected a training Parquet", "Make one with: wyr-batch train prepare"
_COMPLEMENT = np.arange(256, dtype=np.uint8)
for _a, _b in ("AT", "TA", "CG", "GC", "RY", "YR", "KM", "MK", "BV", "VB", "DH", "HD"):
    _COMPLEMENT[[ord(_a), ord(_a.lower())]] = ord(_b)

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledReads:
    """Sequences with one label per rank.

    Attributes:
        bases: uint8 [N], ASCII letters of all sequences.
        offsets: int64 [n + 1].
        labels: int64 [n, R], class within the rank, -1 where unknown.
        in_frame: bool [n], the sequence is a coding strand that starts with a codon.
        headers: FASTA header of each sequence, if they were asked for.
    """

    bases: npt.NDArray[np.uint8]
    offsets: Int64s
    labels: Int64s
    in_frame: npt.NDArray[np.bool_]
    headers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64s:
        return np.diff(self.offsets)

    def sample(self, n: int, seed: int = 0) -> LabelledReads:
        """Return n sequences drawn without replacement (all of them if there are no more)."""
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:n])
        offsets = np.concatenate(([0], np.cumsum(self.lengths[rows])))
        pieces = [self.bases[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        headers = tuple(self.headers[row] for row in rows) if self.headers else ()
        return LabelledReads(np.concatenate(pieces), offsets, self.labels[rows], self.in_frame[rows], headers)


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
            f"--min-sequences: got {min_sequences}, expected at most {most}, what the largest {names[-1]} of "
            f"{shown_path(source)} has outside the test part."
        )
    rows = [i for i, label in enumerate(columns[-1]) if label is None or label in kept]
    ranks = [
        Rank(name, tuple(sorted({column[i] for i in rows} - {None})))
        for name, column in zip(names, columns, strict=True)
    ]
    for rank in ranks:
        if not rank.labels:
            raise InputError(f"{shown_path(source)}, column {rank.name!r}: got no label, expected some.")
    return ranks


def _labels(table: pa.Table, name: str, source: str | Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(
            f"{shown_path(source)}: got the ranks {', '.join(rank_names(table))}, expected {name!r} too, a rank of the "
            "classifier. Name the table that it was trained on, or prepare one with its ranks."
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
            f"{shown_path(source)}, split {split!r}: got no sequence of the chosen classes among {len(table)}, "
            "expected at least one. Prepare more sequences, or another share for this part."
        )
    sequences = table["sequence"].take(pa.array(rows)).combine_chunks()
    if isinstance(sequences, pa.ChunkedArray):
        sequences = sequences.chunk(0)
    lengths = pc.binary_length(sequences).to_numpy()
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    bases = np.frombuffer("".join(sequences.to_pylist()).encode("ascii"), np.uint8)
    names = table["header"].take(pa.array(rows)).to_pylist()
    in_frame = np.array(["XM_" not in name for name in names])
    return LabelledReads(bases, offsets, labels[rows], in_frame, tuple(names) if headers else ())


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file that `train prepare` wrote. Raises: InputError naming what it is not."""
    status = look_at(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown_path(path)}: got {kind_of(status)}, {_EXPECTED}. {_ADVICE}")
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, path)
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        got = " ".join(str(error).split())[:100] if status else "no such file"
        raise InputError(f"{shown_path(path)}: got '{got}', {_EXPECTED}. {_ADVICE}") from None
    _check_values(table, path)
    return table


def _check_columns(schema: pa.Schema, path: Path) -> None:
    """Raise InputError unless the columns are those of `prepare.schema_of`, whatever the ranks."""
    shown = shown_path(path)
    for name in FIXED_COLUMNS:
        if name not in schema.names:
            raise InputError(f"{shown}: got no column {name!r}, {_EXPECTED}. {_ADVICE}")
    if set(schema.names) == set(FIXED_COLUMNS):
        raise InputError(f"{shown}: got no column of labels, expected one for each rank. {_ADVICE}")
    for field in schema:
        kind = field.type
        if pa.types.is_dictionary(kind) and field.name not in ("header", "sequence"):
            kind = kind.value_type
        if schema.names.count(field.name) > 1:
            raise InputError(f"{shown}, column {field.name!r}: got it more than once, expected it once. {_ADVICE}")
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{shown}, column {field.name!r}: got {field.type}, expected text. {_ADVICE}")
    ranks = [name for name in schema.names if name not in FIXED_COLUMNS]
    check_rank_names(ranks, shown, InputError)


def _check_values(table: pa.Table, path: Path) -> None:
    """Raise InputError naming the first row without a name, with an unknown split, or with no ASCII sequence."""
    if not len(table):
        raise InputError(f"{shown_path(path)}: got no row, expected labelled sequences. {_ADVICE}")
    sequence = table["sequence"]
    is_bases = pc.and_(pc.string_is_ascii(sequence), pc.greater(pc.binary_length(sequence), 0))
    for name, is_right, expected in (
        ("header", pc.is_valid(table["header"]), "a name"),
        ("split", pc.is_in(table["split"].cast(pa.string()), pa.array(SPLITS)), f"one of {', '.join(SPLITS)}"),
        ("sequence", pc.fill_null(is_bases, False), "letters"),
    ):
        row = pc.index(is_right, False).as_py()
        if row >= 0:
            got = repr(table[name][row].as_py())[:60]
            raise InputError(
                f"{shown_path(path)}, column {name!r}, row {row + 1}: got {got}, expected {expected}. {_ADVICE}"
            )


def sampling_weights(labels: Int64s, null_leaf_weight: float) -> npt.NDArray[np.float64]:
    """Return each sequence's probability of being drawn: every finest class alike.

    Sequences without a finest label form one group per coarsest class, drawn `null_leaf_weight` times as often as
    one finest class.
    """
    leaf = np.where(labels[:, -1] >= 0, labels[:, -1], -2 - labels[:, 0])
    names, inverse, counts = np.unique(leaf, return_inverse=True, return_counts=True)
    weights = np.where(names >= 0, 1.0, null_leaf_weight) / counts
    drawn = weights[inverse]
    return drawn / drawn.sum()


def class_priors(labels: Int64s, weights: npt.NDArray[np.float64], sizes: Sequence[int]) -> Tensor:
    """Return the share of each class among the drawn sequences that have a label of its rank, float32 [C]."""
    shares = []
    for r, size in enumerate(sizes):
        known = labels[:, r] >= 0
        share = np.bincount(labels[known, r], weights[known], minlength=size)
        shares.append(share / share.sum())
    return torch.from_numpy(np.concatenate(shares)).float()


@dataclass(frozen=True)
class LabelledBatch:
    """One batch: input_ids int64 [B, T], labels int64 [B, R], frames int64 [B] (0 to 5, -1 unknown)."""

    input_ids: Tensor
    labels: Tensor
    frames: Tensor


def cut_batch(
    reads: LabelledReads, rows: Int64s, starts: Int64s, lengths: Int64s, reverse: npt.NDArray[np.bool_]
) -> LabelledBatch:
    """Cut pieces out of sequences, turn some to the other strand, tokenise and pad them.

    Args:
        rows: int64 [B], which sequence each piece is of.
        starts, lengths: int64 [B], the piece in bases of the sequence.
        reverse: bool [B], take the reverse complement of the piece.
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    turned = np.repeat(reverse, lengths)
    place = np.where(turned, np.repeat(lengths, lengths) - 1 - place, place)
    bases = reads.bases[np.repeat(reads.offsets[rows] + starts, lengths) + place]
    bases = np.where(turned, _COMPLEMENT[bases], bases)
    tokens = tokenise(bases, offsets)
    counts = tokens.counts
    ids = np.full((len(rows), int(counts.max(initial=0)) + 1), PAD_ID, np.int64)
    ids[:, 0] = CLS_ID
    row_of = np.repeat(np.arange(len(rows)), counts)
    ids[row_of, np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], counts) + 1] = tokens.ids
    # Where the first codon boundary lies in the piece as it is read, and on which strand.
    phase = np.where(reverse, (starts + lengths) % 3 + 3, starts % 3)
    frames = np.where(reads.in_frame[rows], phase, NULL)
    return LabelledBatch(torch.from_numpy(ids), torch.from_numpy(reads.labels[rows]), torch.from_numpy(frames))


class StepBatches(Dataset[LabelledBatch]):
    """Item i is the training batch of step i.

    Reads are drawn for `SORTED_STEPS` batches at once and dealt out by length, so that a batch has little padding.
    """

    SORTED_STEPS = 16

    def __init__(
        self,
        reads: LabelledReads,
        n_steps: int,
        *,
        batch_reads: int = 128,
        window_bp: int = 1500,
        short_bp: int = 100,
        full_share: float = 0.5,
        null_leaf_weight: float = 8.0,
        balanced: bool = True,
        seed: int = 0,
    ) -> None:
        """
        Args:
            balanced: draw every finest class alike; else every sequence.
            batch_reads: rows a batch.
            window_bp: longest piece of a read, bases.
            full_share: share of the reads cut at window_bp; the rest at a length drawn log-uniformly from short_bp
                (at most window_bp) to window_bp.
        """
        self.reads, self.n_steps, self.seed, self.batch_reads = reads, n_steps, seed, batch_reads
        self.window_bp, self.short_bp, self.full_share = window_bp, min(short_bp, window_bp), full_share
        self.weights = sampling_weights(reads.labels, null_leaf_weight)
        if not balanced:
            self.weights = np.full(len(reads), 1 / len(reads))
        self._cumulative = np.cumsum(self.weights)

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> LabelledBatch:
        group, place = divmod(step, self.SORTED_STEPS)
        rng = np.random.default_rng((self.seed, group))
        n = self.batch_reads * self.SORTED_STEPS
        rows = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        cut_bp = np.exp(rng.uniform(np.log(self.short_bp), np.log(self.window_bp), n)).astype(np.int64)
        cut_bp[rng.random(n) < self.full_share] = self.window_bp
        available = self.reads.lengths[rows]
        lengths = np.minimum(available, cut_bp)
        # A whole sequence still starts at a random one of its first six bases, so that no frame is special.
        slack = np.maximum(available - lengths, np.minimum(TOKEN_BP - 1, available // 2))
        starts = (rng.random(n) * (slack + 1)).astype(np.int64)
        lengths = np.minimum(lengths, available - starts)
        reverse = rng.random(n) < 0.5
        turn = rng.permutation(self.SORTED_STEPS)[place]
        dealt = np.argsort(lengths, kind="stable")[turn * self.batch_reads : (turn + 1) * self.batch_reads]
        return cut_batch(self.reads, rows[dealt], starts[dealt], lengths[dealt], reverse[dealt])


def batches_by_length(n_tokens: Int64s, batch_tokens: int, batch_rows: int | None = None) -> list[Int64s]:
    """Return rows grouped by like length, int64 each, no batch wider than a budget of padded tokens.

    Args:
        n_tokens: int64 [n], tokens of each row.
        batch_rows: most rows of a batch; None sets no limit.
    """
    order = np.argsort(n_tokens, kind="stable")
    batches: list[Int64s] = []
    start = 0
    while start < len(order):
        end = start + 1
        most = len(order) if batch_rows is None else min(len(order), start + batch_rows)
        while end < most and n_tokens[order[end]] * (end + 1 - start) <= batch_tokens:
            end += 1
        batches.append(order[start:end])
        start = end
    return batches


def evaluation_batches(reads: LabelledReads, window_bp: int, batch_tokens: int = 16384) -> list[Int64s]:
    """Return rows of `reads` grouped by length into batches, each read's first `window_bp` bases."""
    return batches_by_length(np.minimum(reads.lengths, window_bp) // TOKEN_BP + TOKEN_BP, batch_tokens)


def evaluation_batch(reads: LabelledReads, rows: Int64s, window_bp: int) -> LabelledBatch:
    """Return the first `window_bp` bases of the given rows as one batch."""
    lengths = np.minimum(reads.lengths[rows], window_bp)
    return cut_batch(reads, rows, np.zeros_like(rows), lengths, np.zeros(len(rows), bool))
