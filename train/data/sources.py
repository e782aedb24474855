"""Where labelled sequences come from: FASTA with taxids, BERTax trees, and tables.

    genomes.fasta + ids.tsv          any FASTA; the table gives each read id its taxid
    test.fasta  >TAXID INDEX         BERTax-style FASTA: the first word of the header is the taxid
    Viruses_fragments.json           BERTax-style lists (https://osf.io/dwkte): a JSON list of sequences, and beside it
    Viruses_species_picked.txt       the taxid of each, one a line; a directory is searched for such pairs
    reads.parquet | .csv | .tsv      a column of sequences, and labels by rank or a taxid

Everything is streamed; a source yields `Piece`s of some thousand sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from wyr_batch.checks.files import reason_of, shown_path
from wyr_batch.errors import InputError, MissingExtraError
from wyr_batch.reads.open import open_reads

from .lineages import Labels

FRAGMENTS, PICKED = "_fragments.json", "_species_picked.txt"
TABLES = (".parquet", ".csv", ".tsv")
SPLITS = ("train", "validation", "test")
_HEADER = "header"  # the column of a table that names its sequences
_PIECE = 8192
Value = TypeVar("Value")
_TAXID = re.compile(r"\d{1,18}", re.ASCII)


def is_table(path: Path) -> bool:
    """True for a file that is read as a table, by its name."""
    return path.suffix.lower() in TABLES


@dataclass(frozen=True, slots=True)
class Piece:
    """Some sequences of a source, as columns.

    Attributes:
        headers: names, unique within the source where the source's are.
        sequences: letters.
        taxids: NCBI taxonomy ids, None where unknown; or no list where labels are given.
        labels: labels of the ranks asked for, where the source holds them itself.
        splits: what the source's split column says, if it was asked for.
        seconds: second texts of pairs, None where there is none; or no list.
        rationales: spans [start, end) in code points that people marked, None where they did not look; or no list.
    """

    headers: list[str]
    sequences: list[str]
    taxids: list[int | None] | None = None
    labels: list[Labels] | None = None
    splits: list[str] | None = None
    seconds: list[str | None] | None = None
    rationales: list[list[list[int]] | None] | None = None

    def take(self, rows: Sequence[int], sequences: list[str] | None = None) -> Piece:
        """Return some of the sequences; `sequences` in place of theirs."""

        def some(values: list[Value] | None) -> list[Value] | None:
            return None if values is None else [values[row] for row in rows]

        return Piece(
            [self.headers[row] for row in rows],
            [self.sequences[row] for row in rows] if sequences is None else sequences,
            some(self.taxids),
            some(self.labels),
            some(self.splits),
            some(self.seconds),
            some(self.rationales),
        )


def read_taxids(path: Path) -> dict[str, int]:
    """Return sequence id -> taxid from a tab-separated table.

    Either NCBI's accession2taxid (columns accession.version and taxid by name), or id and taxid as the first two
    columns, with or without a header line.

    Raises: InputError.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return _taxids(file, path)
    except OSError as problem:
        got, advice = f"'{reason_of(problem)}'", "Check the path."
    except UnicodeDecodeError:
        got, advice = "bytes that are not UTF-8", "Unpack it first, if it is packed."
    raise InputError(shown_path(path), got, "a table of ids and taxids", advice)


def _taxids(lines: Iterable[str], path: Path) -> dict[str, int]:
    names: list[str] | None = None
    taxids: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\n").split("\t")
        if number == 1 and "taxid" in fields:
            names = fields
            continue
        try:
            if names:
                key = "accession.version" if "accession.version" in names else names[0]
                taxids[fields[names.index(key)]] = int(fields[names.index("taxid")])
            else:
                taxids[fields[0]] = int(fields[1])
        except (ValueError, IndexError):
            raise InputError(
                f"{shown_path(path)}, line {number}", f"{line.rstrip()[:60]!r}", "an id, a tab and a taxid"
            ) from None
    return taxids


def from_fasta(path: Path, taxids: Mapping[str, int] | None) -> Iterator[Piece]:
    """Yield the sequences of a FASTA (or FASTQ, BAM ...).

    Args:
        taxids: id -> taxid, or None where the id itself is the taxid (`>TAXID INDEX`).
    """
    with open_reads(path) as reads:
        for chunk in reads:
            ids = chunk.ids.to_pylist()
            raw = chunk.bases.tobytes().decode("ascii")
            ends = chunk.offsets.tolist()
            sequences = [raw[start:end] for start, end in pairwise(ends)]
            if taxids is not None:
                yield Piece(ids, sequences, [taxids.get(name) for name in ids])
                continue
            strange = next((i for i, name in enumerate(ids) if not _TAXID.fullmatch(name)), None)
            if strange is not None:
                raise InputError(
                    f"{shown_path(path)}, record {chunk.first_record + strange}",
                    f"{ids[strange]!r}",
                    "`>TAXID INDEX`",
                    "Where headers are no taxids, name a table of them: --taxids.",
                )
            headers = [f"{name} {chunk.first_record - 1 + i}" for i, name in enumerate(ids)]
            yield Piece(headers, sequences, [int(name) for name in ids])


def from_bertax(fragments: Path) -> Iterator[Piece]:
    """Yield a BERTax fragments list, `<name>_fragments.json` beside `<name>_species_picked.txt`."""
    try:
        import ijson
    except ImportError:
        raise MissingExtraError("train prepare", "ijson", "train") from None
    picked = fragments.with_name(fragments.name.removesuffix(FRAGMENTS) + PICKED)
    try:
        taxids = [int(line) for line in picked.read_text(encoding="utf-8-sig").split()]
    except (OSError, ValueError) as error:
        raise InputError(
            shown_path(picked), f"'{reason_of(error)}'", f"one taxid a line, beside {shown_path(fragments.name)}"
        ) from None
    n_done = 0
    try:
        with fragments.open("rb") as file:
            items = ijson.items(file, "item")
            while sequences := list(islice(items, _PIECE)):
                if not all(isinstance(sequence, str) for sequence in sequences):
                    raise InputError(fragments, "an entry that is no text", "a JSON list of sequences")
                own = taxids[n_done : n_done + len(sequences)]
                if len(own) < len(sequences):
                    break
                yield Piece([f"{t} {n_done + i}" for i, t in enumerate(own)], sequences, list(own))
                n_done += len(sequences)
    except (ijson.JSONError, UnicodeDecodeError, OSError) as error:
        raise InputError(fragments, f"'{reason_of(error)}' after {n_done} sequences", "a JSON list of them") from None
    if sequences or n_done != len(taxids):
        raise InputError(
            fragments,
            f"{'more than ' if sequences else ''}{n_done} sequences",
            f"{len(taxids)}, one for each line of {picked.name}",
            "The two files do not belong together.",
        )


def from_table(
    path: Path, ranks: Sequence[str], sequence: str, taxid: str | None, split: str | None
) -> Iterator[Piece]:
    """Yield the rows of a Parquet, CSV or TSV file.

    Args:
        sequence, taxid, split: columns; without `taxid` each rank is a column of labels.
    """
    n_done = 0
    wanted = [sequence, *([taxid] if taxid else ranks), *([split] if split else [])]
    for batch in _table_batches(path, wanted, sequence, [] if taxid else ranks):
        columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in batch.schema.names}
        names = columns.get(_HEADER) or [None] * len(batch)
        headers = [
            f"{shown_path(path.stem)} {n_done + i}" if name is None else str(name) for i, name in enumerate(names)
        ]
        n_done += len(batch)
        labels = None if taxid else list(zip(*(map(_label, columns[rank]) for rank in ranks), strict=True))
        yield Piece(
            headers,
            [letters or "" for letters in columns[sequence]],
            [_taxid(path, t) for t in columns[taxid]] if taxid else None,
            labels,
            _checked_splits(columns[split], f"{shown_path(path)}, column {split!r}") if split else None,
        )


def _checked_splits(names: list[Any], where: str) -> list[str]:
    """Return the names of splits. Raises: InputError for a name that is none."""
    for name in names:
        if name not in SPLITS:
            raise InputError(where, f"{name!r}", ", ".join(SPLITS))
    return names


def _taxid(path: Path, value: object) -> int | None:
    try:
        return None if value in (None, "") else int(str(value))
    except ValueError:
        raise InputError(shown_path(path), f"taxid {value!r}", "a whole number") from None


def _label(value: object) -> str | None:
    return str(value) if value not in (None, "") else None


def _table_batches(path: Path, wanted: Sequence[str], sequence: str, labels: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the wanted columns, and that of headers if there is one."""
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                names = _columns(path, file.schema_arrow.names, wanted)
                for name in (sequence, *labels):
                    _check_type(path, file.schema_arrow.field(name), is_label=name != sequence)
                yield from file.iter_batches(_PIECE, columns=names)
            return
        parsing = pacsv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        # All text: a label 007 is no number, and a column is not what its first rows look like. NA and the like: null.
        columns = dict.fromkeys((*wanted, _HEADER), pa.string())
        texts = pacsv.ConvertOptions(column_types=columns, strings_can_be_null=True)
        with pacsv.open_csv(path, parse_options=parsing, convert_options=texts) as reader:
            names = _columns(path, reader.schema.names, wanted)
            for batch in reader:
                yield batch.select(names)
    except (OSError, pa.ArrowException) as error:
        got = " ".join(str(error).split())[:160]
        raise InputError(shown_path(path), f"'{got}'", "a Parquet, CSV or TSV table") from None


def _check_type(path: Path, column: pa.Field, is_label: bool) -> None:
    """Raise InputError for a column of Parquet that holds no texts (labels may also be whole numbers)."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return
    if not (is_label and pa.types.is_integer(kind)):
        raise InputError(f"{shown_path(path)}, column {column.name!r}", column.type, "text")


def _columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in present:
            raise InputError(shown_path(path), f"the columns {', '.join(present)}", f"{name!r} too")
    names = list(dict.fromkeys([*wanted, *([_HEADER] if _HEADER in present else [])]))
    for name in names:
        if present.count(name) > 1:
            raise InputError(shown_path(path), f"the column {name!r} more than once", "it once")
    return names
