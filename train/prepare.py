"""Labelled sequences into one training Parquet: read a source, find the labels, split, count what was left out.

    header, sequence, split, then one column per rank in rank order; footer metadata `wyr` (JSON): how it was made

Splits: `hash` of the header (never moves), `stratified` by the finest rank (the paper's), or a column of the source.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wyr_batch import __version__
from wyr_batch.errors import InputError, UsageError

from .lineages import Taxonomy
from .sources import FRAGMENTS, TABLES, Piece, from_bertax, from_fasta, from_table, read_taxids

RANKS = ("superkingdom", "phylum", "genus")
SPLITS = ("train", "validation", "test")
FIXED_COLUMNS = ("header", "sequence", "split")
_ROW_GROUP = 65_536


@dataclass(frozen=True)
class SplitRule:
    """How sequences are dealt out to training, validation and test.

    Attributes:
        kind: 'hash', 'stratified' or 'column'.
        test_share, validation_share: of the sequences (stratified only); the paper's are 2 % and 10 %.
    """

    kind: str = "stratified"
    test_share: float = 0.02
    validation_share: float = 0.1
    seed: int = 0


@dataclass
class Counts:
    """What happened to the sequences of a source; every one is counted once as kept or dropped."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    null_labels: Counter[str] = field(default_factory=Counter)
    merged_taxids: int = 0
    by_coarsest: Counter[str] = field(default_factory=Counter)
    by_split: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "null_labels": dict(self.null_labels),
            "sequences_with_merged_taxids": self.merged_taxids,
            "by_coarsest_rank": dict(sorted(self.by_coarsest.items())),
            "by_split": {name: self.by_split[name] for name in SPLITS},
        }


def split_of(header: str) -> str:
    """Return the split that the hash rule gives a FASTA header line without its `>`.

    `int(sha1(header)[:8], 16) % 100`: 0-1 test, 2-11 validation, the rest training.

    >>> split_of("GeneID:921702")
    'train'
    """
    bucket = int(hashlib.sha1(header.encode()).hexdigest()[:8], 16) % 100
    if bucket < 2:
        return "test"
    return "validation" if bucket < 12 else "train"


def rank_names(table: pa.Table) -> tuple[str, ...]:
    """Return the ranks of a training Parquet, coarsest first."""
    return tuple(name for name in table.schema.names if name not in FIXED_COLUMNS)


def schema_of(ranks: Sequence[str]) -> pa.Schema:
    label = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("header", pa.string()),
            ("sequence", pa.string()),
            ("split", pa.dictionary(pa.int8(), pa.string())),
            *((rank, label) for rank in ranks),
        ]
    )


def systematic(order: npt.NDArray[np.int64], share: float, start: float) -> npt.NDArray[np.bool_]:
    """Mark `share` of the places of `order`, evenly spaced: each run in it gets its share to within one.

    >>> systematic(np.arange(10), 0.2, 0.0).nonzero()[0].tolist()
    [4, 9]
    """
    steps = np.floor(np.arange(len(order) + 1) * share + start + 1e-9)
    marked = np.zeros(len(order), bool)
    marked[order] = np.diff(steps) > 0
    return marked


def stratified_splits(finest: npt.NDArray[np.int64], rule: SplitRule) -> npt.NDArray[np.int8]:
    """Return 0 train, 1 validation, 2 test for each sequence, every class in its share.

    Args:
        finest: int64 [n], class of the finest rank, -1 for null (a class of its own).
    """
    rng = np.random.default_rng(rule.seed)
    shuffled = rng.permutation(len(finest))
    order = shuffled[np.argsort(finest[shuffled], kind="stable")]
    test = systematic(order, rule.test_share, rng.random())
    rest = order[~test[order]]
    held = np.zeros(len(finest), np.int8)
    held[test] = 2
    validation = systematic(np.arange(len(rest)), rule.validation_share / (1 - rule.test_share), rng.random())
    held[rest[validation]] = 1
    return held


def with_lineages(pieces: Iterable[Piece], taxonomy: Taxonomy, counts: Counts) -> Iterator[Piece]:
    """Yield pieces with labels instead of taxids; sequences whose taxid the dump does not hold are dropped."""
    for piece in pieces:
        keep: list[int] = []
        labels = []
        for i, taxid in enumerate(piece.taxids or []):
            found = taxonomy.lineage(taxid) if taxid is not None else None
            if found is None:
                counts.dropped["no taxid"] += 1
            elif found.labels is None:
                counts.dropped["taxid not in the dump"] += 1
            else:
                counts.merged_taxids += found.merged
                keep.append(i)
                labels.append(found.labels)
        yield Piece(
            [piece.headers[i] for i in keep],
            [piece.sequences[i] for i in keep],
            labels=labels,
            splits=[piece.splits[i] for i in keep] if piece.splits is not None else None,
        )


def complete(pieces: Iterable[Piece], ranks: Sequence[str], incomplete: str, counts: Counts) -> Iterator[Piece]:
    """Yield the sequences to keep.

    Args:
        incomplete: what to do with a sequence that lacks a rank: 'drop' it (the paper does) or keep it with a
            'null' label; one that lacks all ranks is always dropped.
    """
    for piece in pieces:
        keep = []
        for i, labels in enumerate(piece.labels or []):
            missing = [rank for rank, label in zip(ranks, labels, strict=True) if label is None]
            if missing and (incomplete == "drop" or len(missing) == len(ranks)):
                counts.dropped[f"no {missing[0]}"] += 1
            elif not piece.sequences[i]:
                counts.dropped["no bases"] += 1
            else:
                counts.null_labels.update(missing)
                keep.append(i)
        yield Piece(
            [piece.headers[i] for i in keep],
            [piece.sequences[i] for i in keep],
            labels=[piece.labels[i] for i in keep] if piece.labels is not None else None,
            splits=[piece.splits[i] for i in keep] if piece.splits is not None else None,
        )


def prepare(
    pieces: Iterable[Piece],
    ranks: Sequence[str],
    output: Path,
    rule: SplitRule,
    counts: Counts,
    incomplete: str = "drop",
    provenance: dict[str, Any] | None = None,
) -> Counts:
    """Write the training Parquet; it appears under its name only when whole.

    Args:
        pieces: labelled sequences, streamed; may count what they drop themselves in `counts`.
        provenance: written to the footer beside the counts.
    Returns: counts, complete.
    Raises: InputError where nothing is left, or a split column holds another name.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    unsplit, partial = output.with_name(output.name + ".unsplit"), output.with_name(output.name + ".partial")
    finest: list[str | None] = []
    splits: list[npt.NDArray[np.int8]] = []
    try:
        with pq.ParquetWriter(unsplit, schema_of(ranks), compression="zstd") as writer:
            for piece in complete(pieces, ranks, incomplete, counts):
                counts.kept += len(piece.headers)
                counts.by_coarsest.update(labels[0] or "null" for labels in piece.labels or [])
                finest.extend(labels[-1] for labels in piece.labels or [])
                if rule.kind != "stratified":
                    splits.append(_given_splits(piece, rule))
                writer.write_table(_table(piece, ranks))
        if not counts.kept:
            raise InputError(
                f"{output}: got no sequence to write, expected at least one. Dropped: {dict(counts.dropped)}."
            )
        if rule.kind == "stratified":
            codes = pc.fill_null(pa.array(finest).dictionary_encode().indices, -1).to_numpy().astype(np.int64)
            held = stratified_splits(codes, rule)
        else:
            held = np.concatenate(splits)
        counts.by_split.update({name: int(n) for name, n in zip(SPLITS, np.bincount(held, minlength=3), strict=True)})
        made = {"version": __version__, "ranks": list(ranks), "split": vars(rule), **(provenance or {})}
        metadata = {b"wyr": json.dumps(made | {"counts": counts.to_json()}).encode()}
        _write_splits(unsplit, partial, held, metadata)
        partial.replace(output)
    finally:
        unsplit.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    return counts


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; without `taxid` each rank is a column of labels."""

    sequence: str = "sequence"
    taxid: str | None = None


def prepare_sources(
    paths: Sequence[Path],
    output: Path,
    ranks: Sequence[str],
    rule: SplitRule,
    incomplete: str = "drop",
    taxdump: Path | None = None,
    taxids: Path | None = None,
    columns: Columns = Columns(),
    split_column: str | None = None,
) -> Counts:
    """Prepare FASTA, BERTax trees and tables (see `sources`), one after the other into one training Parquet."""
    by_id = read_taxids(taxids) if taxids else None
    counts = Counts()
    taxonomy = Taxonomy(taxdump, ranks) if taxdump else None

    def lineages(pieces: Iterable[Piece], path: Path) -> Iterator[Piece]:
        if taxonomy is None:
            raise UsageError(f"{path}: got taxids and no taxonomy, expected --taxdump. Name NCBI's taxdump.tar.gz.")
        return with_lineages(pieces, taxonomy, counts)

    def pieces() -> Iterator[Piece]:
        for path in _files(paths):
            if path.suffix in TABLES:
                rows = from_table(path, ranks, columns.sequence, columns.taxid, split_column)
                yield from lineages(rows, path) if columns.taxid else rows
            elif rule.kind == "column":
                raise UsageError(f"{path}: got no split column in this kind of file. Use --split stratified or hash.")
            elif path.name.endswith(FRAGMENTS):
                yield from lineages(from_bertax(path), path)
            else:
                yield from lineages(from_fasta(path, by_id), path)

    made: dict[str, Any] = {"sources": [path.name for path in paths], "incomplete": incomplete}
    if taxonomy is not None:
        made["taxdump"] = {"name": taxonomy.path.name, "date": taxonomy.date}
    return prepare(pieces(), ranks, output, rule, counts, incomplete, made)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files of the sources, a directory's BERTax lists instead of the directory."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.rglob(f"*{FRAGMENTS}"))
        if not found:
            raise InputError(f"{path}: got no *{FRAGMENTS} in this directory, expected a BERTax tree or a file.")
        yield from found


def _given_splits(piece: Piece, rule: SplitRule) -> npt.NDArray[np.int8]:
    names = piece.splits if rule.kind == "column" else [split_of(header) for header in piece.headers]
    strange = next((name for name in names or [] if name not in SPLITS), None)
    if strange is not None:
        raise InputError(f"split column: got {strange!r}, expected {', '.join(SPLITS)}.")
    return np.array([SPLITS.index(name) for name in names or []], np.int8)


def _table(piece: Piece, ranks: Sequence[str]) -> pa.Table:
    schema = schema_of(ranks)
    columns = [
        piece.headers,
        piece.sequences,
        [None] * len(piece.headers),
        *([labels[r] for labels in piece.labels or []] for r in range(len(ranks))),
    ]
    arrays = [pa.array(column, type=f.type) for column, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _write_splits(source: Path, target: Path, held: npt.NDArray[np.int8], metadata: dict[bytes, bytes]) -> None:
    names = pa.array(SPLITS)
    done = 0
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow.with_metadata(metadata)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in file.iter_batches(_ROW_GROUP):
                split = pa.DictionaryArray.from_arrays(pa.array(held[done : done + len(batch)]), names)
                done += len(batch)
                columns = [split if name == "split" else batch[name] for name in schema.names]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
