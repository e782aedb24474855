"""Labelled sequences into one training Parquet: read a source, find the labels, split, count what was left out.

    header, sequence, split, then one column per rank in rank order; of texts also second (of a pair) and rationale
    footer metadata `wyr` (JSON): what the rows are (`input`), and how it was made

Splits: `hash` of the header or of the text (never moves), `stratified` by the finest rank (the paper's) or by all
labels that a text may have at once, or a column of the source.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wyr_batch._version import __version__
from wyr_batch.checks.files import exists, shown_path, sync_folder
from wyr_batch.checks.outputs import FILE, Output, Source, check_outputs
from wyr_batch.errors import InputError, OutputError
from wyr_batch.texts.open import PROTEINS, READS, TEXTS

from ..places import writing
from .lineages import Labels, Taxonomy
from .request import (
    COLUMNS,
    FIXED_COLUMNS,
    RATIONALE,
    SECOND,
    TEXT_COLUMNS,
    Columns,
    SplitRule,
    check_request,
    check_training_ranks,
    checked_files,
)
from .sources import FRAGMENTS, SPLITS, Piece, from_bertax, from_fasta, from_table, is_table, read_taxids
from .splits import split_of, stratified_by_labels, stratified_splits

RANKS = ("superkingdom", "phylum", "genus")
_ROW_GROUP = 65_536
_EMPTY = {READS: "no bases", PROTEINS: "no residues", TEXTS: "no text"}
_NOT_IN_SEQUENCES = re.compile(r"[^A-Za-z*.\-]")  # as in FASTA


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


def rank_names(table: pa.Table) -> tuple[str, ...]:
    """Return the ranks of a training Parquet, coarsest first."""
    return tuple(name for name in table.schema.names if name not in (*FIXED_COLUMNS, *TEXT_COLUMNS))


def schema_of(ranks: Sequence[str], others: Sequence[str] = ()) -> pa.Schema:
    """Return the columns of a training Parquet; `others` of `TEXT_COLUMNS`."""
    label = pa.dictionary(pa.int32(), pa.string())
    types = {SECOND: pa.string(), RATIONALE: pa.list_(pa.list_(pa.int32()))}
    return pa.schema(
        [
            ("header", pa.string()),
            ("sequence", pa.string()),
            ("split", pa.dictionary(pa.int8(), pa.string())),
            *((rank, label) for rank in ranks),
            *((name, types[name]) for name in others),
        ]
    )


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
        yield replace(piece.take(keep), taxids=None, labels=labels)


def _letters(sequence: str) -> str | None:
    """Return a sequence without its white space, None if it holds what FASTA may not hold.

    >>> _letters("ACGT N-*\\n"), _letters("AC7"), _letters(" ")
    ('ACGTN-*', None, '')
    """
    if not (sequence.isascii() and sequence.isalpha()):
        sequence = "".join(sequence.split())
    return None if _NOT_IN_SEQUENCES.search(sequence) else sequence


def complete(
    pieces: Iterable[Piece], ranks: Sequence[str], incomplete: str, counts: Counts, kind: str = READS
) -> Iterator[Piece]:
    """Yield the sequences to keep.

    Args:
        incomplete: what to do with a sequence that lacks a rank: 'drop' it (the paper does) or keep it with a
            'null' label; one that lacks all ranks is always dropped, as is one without bases or with other characters
            than FASTA has, and a text without a letter.
        kind: of the sequences.
    """
    for piece in pieces:
        keep, sequences = [], []
        for i, labels in enumerate(piece.labels or []):
            missing = [rank for rank, label in zip(ranks, labels, strict=True) if label is None]
            letters = piece.sequences[i] if kind == TEXTS else _letters(piece.sequences[i])
            if missing and (incomplete == "drop" or len(missing) == len(ranks)):
                counts.dropped[f"no {missing[0]}"] += 1
            elif letters is None:
                counts.dropped["characters of no sequence"] += 1
            elif not (_has_text(piece, i) if kind == TEXTS else letters):
                counts.dropped[_EMPTY[kind]] += 1
            else:
                counts.null_labels.update(missing)
                keep.append(i)
                sequences.append(letters)
        yield piece.take(keep, sequences)


def _has_text(piece: Piece, row: int) -> bool:
    """Return whether a text, or the second of its pair, has a letter."""
    second = None if piece.seconds is None else piece.seconds[row]
    return bool(piece.sequences[row].strip() or (second or "").strip())


def check_output(output: Path, sources: Sequence[Source]) -> None:
    """Refuse an output that would harm something; of files only a training Parquet is replaced.

    Raises: UsageError, OutputError.
    """
    check_outputs([Output("-o", output, FILE, makes_parents=True)], sources)
    if not exists(output, OutputError):
        return
    try:
        schema = pq.read_schema(output)
        is_ours = b"wyr" in (schema.metadata or {}) and tuple(schema.names[:3]) == FIXED_COLUMNS
    except (OSError, pa.ArrowException):
        is_ours = False
    if not is_ours:
        raise OutputError(
            f"-o {shown_path(output)}",
            "a file that train prepare did not write",
            "a new name or a training Parquet to replace",
            "Name another.",
        )


def prepare(
    pieces: Iterable[Piece],
    ranks: Sequence[str],
    output: Path,
    rule: SplitRule,
    counts: Counts,
    incomplete: str = "drop",
    provenance: dict[str, Any] | None = None,
    kind: str = READS,
    others: Sequence[str] = (),
) -> Counts:
    """Write the training Parquet; it appears under its name only when whole.

    Args:
        pieces: labelled sequences, streamed; may count what they drop themselves in `counts`.
        provenance: written to the footer beside the counts.
        kind: of the sequences: reads, proteins or text.
        others: of `TEXT_COLUMNS`, those that the pieces have.
    Returns: counts, complete.
    Raises: InputError where nothing is left, or a split column holds another name; UsageError for ranks whose columns
        collide; OutputError.
    """
    check_training_ranks(ranks)
    check_output(output, [])
    target = Path(os.path.realpath(output))  # a link stays a link
    name = f".{uuid.uuid4().hex[:12]}"
    unsplit, partial = target.with_name(f"{name}.unsplit"), target.with_name(f"{name}.partial")
    try:
        with writing(output):
            target.parent.mkdir(parents=True, exist_ok=True)
            kept = complete(pieces, ranks, incomplete, counts, kind)
            held = _write_unsplit(kept, schema_of(ranks, others), unsplit, rule, counts, kind)
            if not counts.kept:
                raise InputError(
                    shown_path(output), "no sequence to write", "at least one", f"Dropped: {dict(counts.dropped)}."
                )
            found = np.bincount(held, minlength=3)
            counts.by_split.update({name: int(n) for name, n in zip(SPLITS, found, strict=True)})
            made = {
                "version": __version__,
                "input": kind,
                "ranks": list(ranks),
                "split": vars(rule),
                **(provenance or {}),
            }
            metadata = {b"wyr": json.dumps(made | {"counts": counts.to_json()}).encode()}
            _write_splits(unsplit, partial, held, metadata)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(target)
            sync_folder(target.parent)
    finally:
        unsplit.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    return counts


def _write_unsplit(
    pieces: Iterable[Piece], schema: pa.Schema, path: Path, rule: SplitRule, counts: Counts, kind: str
) -> npt.NDArray[np.int8]:
    """Write the sequences to keep without their splits, and return those, int8 [n]."""
    finest: list[str | None] = []
    several: list[Labels] = []  # at once
    splits = [np.empty(0, np.int8)]
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for piece in pieces:
            counts.kept += len(piece.headers)
            counts.by_coarsest.update(labels[0] or "null" for labels in piece.labels or [])
            finest.extend(labels[-1] for labels in piece.labels or [])
            several.extend(labels for labels in piece.labels or [] if kind != READS and len(labels) > 1)
            if rule.kind != "stratified":
                splits.append(_given_splits(piece, rule, kind))
            writer.write_table(_table(piece, schema))
    if rule.kind != "stratified":
        return np.concatenate(splits)
    if several:
        return stratified_by_labels(several, rule)
    codes = pc.fill_null(pa.array(finest, pa.string()).dictionary_encode().indices, -1)
    return stratified_splits(codes.to_numpy().astype(np.int64), rule)


def prepare_sources(
    paths: Sequence[Path],
    output: Path,
    ranks: Sequence[str],
    rule: SplitRule,
    incomplete: str = "drop",
    taxdump: Path | None = None,
    taxids: Path | None = None,
    columns: Columns = COLUMNS,
    split_column: str | None = None,
) -> Counts:
    """Prepare FASTA, BERTax trees and tables (see `sources`), one after the other into one training Parquet.

    Raises: UsageError, OutputError and InputError before anything is read where the options do not fit together, a
        source is not there, or the output would harm something.
    """
    files = checked_files(paths)
    check_request(files, ranks, taxdump, taxids, columns, split_column)
    named = [("the source", path) for path in paths]
    named += [(flag, path) for flag, path in (("--taxdump", taxdump), ("--taxids", taxids)) if path is not None]
    check_output(output, [Source(flag, path) for flag, path in named])
    by_id = read_taxids(taxids) if taxids is not None else None
    counts = Counts()
    taxonomy = Taxonomy(taxdump, ranks) if taxdump is not None else None

    def pieces() -> Iterator[Piece]:
        for path in files:
            if is_table(path):
                rows = from_table(path, ranks, columns.sequence, columns.taxid, split_column)
                has_labels = columns.taxid is None
            else:
                rows = from_bertax(path) if path.name.endswith(FRAGMENTS) else from_fasta(path, by_id)
                has_labels = False
            yield from rows if has_labels or taxonomy is None else with_lineages(rows, taxonomy, counts)

    made: dict[str, Any] = {"sources": [path.name for path in paths], "incomplete": incomplete}
    if taxonomy is not None:
        made["taxdump"] = {"name": taxonomy.path.name, "date": taxonomy.date}
    return prepare(pieces(), ranks, output, rule, counts, incomplete, made)


def _given_splits(piece: Piece, rule: SplitRule, kind: str) -> npt.NDArray[np.int8]:
    """Return the part of each sequence: by the column, or by a hash: of a read's header, else of the text itself."""
    if rule.kind == "column":
        names = piece.splits or []
    elif kind != READS:  # the same text twice is in one part
        seconds = piece.seconds or [None] * len(piece.sequences)
        names = [split_of("\n".join(filter(None, pair))) for pair in zip(piece.sequences, seconds, strict=True)]
    else:
        names = [split_of(header) for header in piece.headers]
    strange = next((name for name in names if name not in SPLITS), None)
    if strange is not None:
        raise InputError("split column", f"{strange!r}", ", ".join(SPLITS))
    return np.array([SPLITS.index(name) for name in names], np.int8)


def _table(piece: Piece, schema: pa.Schema) -> pa.Table:
    columns: dict[str, Any] = {
        "header": piece.headers,
        "sequence": piece.sequences,
        "split": [None] * len(piece.headers),
        SECOND: piece.seconds,
        RATIONALE: piece.rationales,
    }
    ranks = [name for name in schema.names if name not in columns]
    columns |= {rank: [labels[r] for labels in piece.labels or []] for r, rank in enumerate(ranks)}
    return pa.Table.from_arrays([pa.array(columns[f.name], type=f.type) for f in schema], schema=schema)


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
