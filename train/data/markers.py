"""The labelled reads this project trains and measures on, rebuilt from two public packages.

Sequences: Debian's `metaphlan2-data` (1,036,027 marker sequences of microbial genomes, Expat licence), its
file `markers.fasta`. Labels: PyPI's `taxoniq`, RefSeq accession -> NCBI lineage (release 2024-09).

A header names its source genome in one of four ways:

    gi|345004010|ref|NC_015954.1|:c1336247-1335993   accession, looked up; kept with all three ranks or not at all
    NC_001699.1                                      the same, bare
    gi|156083978|ref|XM_001609423.1|                 a transcript: Eukaryota, other ranks null
    GeneID:921702                                    a viral gene: Viruses, other ranks null

An accession is looked up with its version, else with any version 1 to 5. The split is the hash rule of `prepare`,
so it never moves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wyr_batch.checks.outputs import Source
from wyr_batch.errors import InputError, MissingExtraError

from ..places import writing
from .lineages import Labels
from .prepare import RANKS, Counts, check_output, prepare
from .request import SplitRule
from .sources import Piece, from_fasta

DEBIAN_PACKAGE = "metaphlan2-data"
DEBIAN_PATH = "var/lib/metaphlan2-data/markers.fasta"
Lookup = Callable[[str], Labels | None]

_PIPED = re.compile(r"gi\|\d+\|\w+\|([^|]+)\|")


def accession_of(header: str) -> str | None:
    """Return the accession a marker's header names, with its version, or None.

    >>> accession_of("gi|345004010|ref|NC_015954.1|:c1336247-1335993")
    'NC_015954.1'
    """
    piped = _PIPED.match(header)
    if piped:
        return piped.group(1)
    return header.split(maxsplit=1)[0].split(":", 1)[0] if header.startswith("NC_") else None


def labels_of(header: str, lookup: Lookup) -> Labels | None:
    """Return the labels of one marker in the order of `RANKS`, or None where no lineage is known."""
    if header.startswith("GeneID:"):
        return ("Viruses", None, None)
    accession = accession_of(header)
    if accession is None:
        return None
    if accession.startswith("XM_"):
        return ("Eukaryota", None, None)
    return lookup(accession)


def taxoniq_lookup() -> Lookup:
    """Return a function accession -> (superkingdom, phylum, genus), None unless all three are known.

    Raises: MissingExtraError without the package taxoniq.
    """
    try:
        import taxoniq
    except ImportError:
        raise MissingExtraError("train prepare", "taxoniq", "train") from None

    by_taxon: dict[int, Labels | None] = {}
    by_accession: dict[str, Labels | None] = {}

    def lineage(taxon: taxoniq.Taxon) -> Labels | None:
        if taxon.tax_id not in by_taxon:
            named = {step.rank.name: step.scientific_name for step in taxon.ranked_lineage}
            labels = tuple(named.get(rank) for rank in RANKS)
            by_taxon[taxon.tax_id] = labels if None not in labels else None
        return by_taxon[taxon.tax_id]

    def lookup(accession: str) -> Labels | None:
        if accession not in by_accession:
            stem = accession.split(".")[0]
            found = None
            for name in (accession, *(f"{stem}.{version}" for version in range(1, 6))):
                try:
                    found = lineage(taxoniq.Taxon(accession_id=name))
                    break
                except KeyError:
                    continue
            by_accession[accession] = found
        return by_accession[accession]

    return lookup


@contextmanager
def fetched_markers(folder: Path) -> Iterator[Path]:
    """Download Debian's marker package with apt and unpack it, without installing it; gives the path of markers.fasta.

    It lies in a temporary folder in `folder`, which has the room, and is gone in the end. (Installing would build an
    index of many minutes that nothing here needs.)
    Raises: InputError where apt or the package is not to be had.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise InputError(
            DEBIAN_PACKAGE,
            "no apt-get on this machine",
            "Debian or Ubuntu",
            "Unpack markers.fasta from the package elsewhere and name it on the command line.",
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        unpacked = tempfile.TemporaryDirectory(dir=folder, prefix=".")
    with unpacked as tmp:
        done = subprocess.run(["apt-get", "download", DEBIAN_PACKAGE], cwd=tmp, capture_output=True, text=True)
        debs = list(Path(tmp).glob("*.deb"))
        if done.returncode or not debs:
            raise InputError(
                DEBIAN_PACKAGE,
                f"'{done.stderr.strip()[-200:]}' from apt-get download",
                "a .deb",
                "Run apt-get update, or name a markers.fasta on the command line.",
            )
        done = subprocess.run(["dpkg-deb", "-x", str(debs[0]), tmp], capture_output=True, text=True)
        if done.returncode:
            raise InputError(
                DEBIAN_PACKAGE,
                f"'{done.stderr.strip()[-200:]}' from dpkg-deb -x",
                "the files of a .deb",
                "Is the disk full? Else unpack it elsewhere and name its markers.fasta.",
            )
        yield Path(tmp) / DEBIAN_PATH


def marker_pieces(fasta: Path, lookup: Lookup, counts: Counts) -> Iterator[Piece]:
    """Yield the labelled sequences of a marker FASTA; those without a lineage are counted as dropped."""
    # A marker's header has no white space, so the id is the whole header line.
    for piece in from_fasta(fasta, {}):
        labels = [labels_of(header, lookup) for header in piece.headers]
        keep = [i for i, found in enumerate(labels) if found is not None]
        counts.dropped["no lineage"] += len(labels) - len(keep)
        yield Piece(
            [piece.headers[i] for i in keep],
            [piece.sequences[i] for i in keep],
            labels=[found for found in labels if found is not None],
        )


def prepare_markers(fasta: Path | None, output: Path, lookup: Lookup | None = None) -> Counts:
    """Write the training Parquet of the marker set.

    Args:
        fasta: markers.fasta; None fetches Debian's package.
        lookup: accession -> labels; None takes taxoniq.
    """
    check_output(output, [] if fasta is None else [Source("the source", fasta)])
    lookup = lookup or taxoniq_lookup()
    if fasta is None:
        with fetched_markers(output.parent) as found:
            return prepare_markers(found, output, lookup)
    counts = Counts()
    made = {"sources": [DEBIAN_PACKAGE], "lineages": "taxoniq"}
    return prepare(marker_pieces(fasta, lookup, counts), RANKS, output, SplitRule("hash"), counts, "null", made)
