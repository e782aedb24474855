"""Where labelled sequences come from: FASTA with taxids, BERTax trees, and tables.

    genomes.fasta + ids.tsv          any FASTA; the table gives each read id its taxid
    test.fasta  >TAXID INDEX         BERTax-style FASTA: the first word of the header is the taxid
    Viruses_fragments.json           BERTax-style lists (https://osf.io/dwkte): a JSON list of sequences, and beside it
    Viruses_species_picked.txt       the taxid of each, one a line; a directory is searched for such pairs
    reads.parquet | .csv | .tsv      a column of sequences, and labels by rank or a taxid

Everything is streamed; a source yields `Piece`s of some thousand sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from wyr_batch.errors import InputError, MissingExtraError
from wyr_batch.reads import open_reads

from .lineages import Labels

FRAGMENTS, PICKED = "_fragments.json", "_species_picked.txt"
TABLES = (".parquet", ".csv", ".tsv")
_PIECE = 8192


@dataclass(frozen=True, slots=True)
class Piece:
    """Some sequences of a source, as columns.

    Attributes:
        headers: names, unique within the source where the source's are.
        sequences: letters.
        taxids: NCBI taxonomy ids, None where unknown; or no list where labels are given.
        labels: labels of the ranks asked for, where the source holds them itself.
        splits: what the source's split column says, if it was asked for.
    """

    headers: list[str]
    sequences: list[str]
    taxids: list[int | None] | None = None
    labels: list[Labels] | None = None
    splits: list[str] | None = None


def read_taxids(path: Path) -> dict[str, int]:
    """Return sequence id -> taxid from a tab-separated table.

    Either NCBI's accession2taxid (columns accession.version and taxid by name), or id and taxid as the first two
    columns, with or without a header line.
    """
    names: list[str] | None = None
    taxids: dict[str, int] = {}
    with path.open() as file:
        for number, line in enumerate(file, 1):
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
                    f"{path}, line {number}: got {line.rstrip()[:60]!r}, expected an id, a tab and a taxid."
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
            strange = next((i for i, name in enumerate(ids) if not name.isdigit()), None)
            if strange is not None:
                raise InputError(
                    f"{path}, record {chunk.first_record + strange}: got {ids[strange]!r}, expected `>TAXID INDEX`. "
                    "Where headers are no taxids, name a table of them: --taxids."
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
        taxids = [int(line) for line in picked.read_text().split()]
    except (OSError, ValueError) as error:
        raise InputError(f"{picked}: got '{error}', expected one taxid a line, beside {fragments.name}.") from None
    n_done = 0
    try:
        with fragments.open("rb") as file:
            items = ijson.items(file, "item")
            while sequences := list(islice(items, _PIECE)):
                if not all(isinstance(sequence, str) for sequence in sequences):
                    raise InputError(f"{fragments}: got an entry that is no text, expected a JSON list of sequences.")
                own = taxids[n_done : n_done + len(sequences)]
                if len(own) < len(sequences):
                    break
                yield Piece([f"{t} {n_done + i}" for i, t in enumerate(own)], sequences, list(own))
                n_done += len(sequences)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise InputError(
            f"{fragments}: got '{error}' after {n_done} sequences, expected a JSON list of them."
        ) from None
    if sequences or n_done != len(taxids):
        raise InputError(
            f"{fragments}: got {'more than ' if sequences else ''}{n_done} sequences, expected {len(taxids)}, one for "
            f"each line of {picked.name}. The two files do not belong together."
        )


def from_table(
    path: Path, ranks: Sequence[str], sequence: str, taxid: str | None, split: str | None
) -> Iterator[Piece]:
    """Yield the rows of a Parquet, CSV or TSV file.

    Args:
        sequence, taxid, split: columns; without `taxid` each rank is a column of labels.
    """
    header = "header"
    n_done = 0
    wanted = [sequence, *([taxid] if taxid else ranks), *([split] if split else [])]
    for batch in _table_batches(path, wanted, header):
        columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in batch.schema.names}
        headers = columns.get(header) or [f"{path.stem} {n_done + i}" for i in range(len(batch))]
        n_done += len(batch)
        labels = None if taxid else list(zip(*(map(_label, columns[rank]) for rank in ranks), strict=True))
        yield Piece(
            [str(name) for name in headers],
            [str(letters) for letters in columns[sequence]],
            [_taxid(path, t) for t in columns[taxid]] if taxid else None,
            labels,
            [str(part) for part in columns[split]] if split else None,
        )


def _taxid(path: Path, value: object) -> int | None:
    try:
        return None if value in (None, "") else int(str(value))
    except ValueError:
        raise InputError(f"{path}: got taxid {value!r}, expected a whole number.") from None


def _label(value: object) -> str | None:
    return str(value) if value not in (None, "") else None


def _table_batches(path: Path, wanted: Sequence[str], header: str) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                names = _columns(path, file.schema_arrow.names, wanted, header)
                yield from file.iter_batches(_PIECE, columns=names)
            return
        parsing = pacsv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
        with pacsv.open_csv(path, parse_options=parsing) as reader:
            names = _columns(path, reader.schema.names, wanted, header)
            for batch in reader:
                yield batch.select(names)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: got '{str(error)[:120]}', expected a Parquet, CSV or TSV table.") from None


def _columns(path: Path, present: Sequence[str], wanted: Sequence[str], header: str) -> list[str]:
    for name in wanted:
        if name not in present:
            raise InputError(f"{path}: got the columns {', '.join(present)}, expected {name!r} too.")
    return [*wanted, *([header] if header in present else [])]
