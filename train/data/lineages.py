"""Lineages from an NCBI taxonomy dump: taxid -> one label per rank, merged and deleted taxids told apart.

The dump is a directory, a .tar.gz or a .zip with nodes.dmp, names.dmp, merged.dmp and (not needed) delnodes.dmp,
as on https://ftp.ncbi.nlm.nih.gov/pub/taxonomy/. The tree is read by taxopy. In 2025 NCBI replaced the rank
superkingdom by domain and, for viruses, by "acellular root"; asked for superkingdom, all three are taken, so old
and new dumps give the same labels.
"""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wyr_batch.checks.files import is_file, is_folder, reason_of, shown_path
from wyr_batch.errors import InputError, MissingExtraError

Labels = tuple[str | None, ...]

_FILES = ("nodes.dmp", "names.dmp", "merged.dmp")
_SAME_RANK = {"superkingdom": ("superkingdom", "domain", "acellular root")}


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a dump says of a taxid.

    Attributes:
        labels: one per rank asked for, None where the lineage has no such rank; None of it all for a taxid that
            the dump does not hold (deleted, or newer than the dump).
        merged: the taxid is an old one that another has replaced.
    """

    labels: Labels | None
    merged: bool


class Taxonomy:
    """A taxonomy dump, asked by taxid."""

    def __init__(self, path: Path, ranks: Sequence[str]) -> None:
        """
        Args:
            path: directory or archive of the dump.
            ranks: names as nodes.dmp has them, e.g. superkingdom, phylum, genus.
        Raises: InputError for a dump that is incomplete or damaged; MissingExtraError without taxopy.
        """
        try:
            import taxopy
        except ImportError:
            raise MissingExtraError("train prepare --taxdump", "taxopy", "train") from None
        self.path, self.ranks = path, tuple(ranks)
        self._taxon, self._unknown = taxopy.Taxon, taxopy.exceptions.TaxidError
        self._known: dict[int, Lineage] = {}
        with tempfile.TemporaryDirectory() as tmp:
            folder, self.date = (path, _file_date(path)) if is_folder(path) else _unpack(path, Path(tmp))
            missing = [name for name in _FILES if not is_file(folder / name)]
            if missing:
                raise InputError(shown_path(path), f"no {missing[0]}", ", ".join(_FILES), "Get NCBI's taxdump.tar.gz.")
            nodes, names, merged = (str(folder / name) for name in _FILES)
            try:
                self._tree = taxopy.TaxDb(nodes_dmp=nodes, names_dmp=names, merged_dmp=merged)
            except (ValueError, IndexError, KeyError, OSError) as error:
                raise InputError(
                    shown_path(path), f"'{reason_of(error)}'", "an NCBI taxonomy dump", "Get it again."
                ) from None

    def lineage(self, taxid: int) -> Lineage:
        """Return the lineage of a taxid, current or merged."""
        if taxid not in self._known:
            self._known[taxid] = self._look_up(taxid)
        return self._known[taxid]

    def _look_up(self, taxid: int) -> Lineage:
        merged = taxid in (self._tree.oldtaxid2newtaxid or {})
        try:
            steps = dict(reversed(self._taxon(taxid, self._tree).ranked_name_lineage))
        except self._unknown:
            return Lineage(None, merged)
        names = (_SAME_RANK.get(rank, (rank,)) for rank in self.ranks)
        labels = tuple(next((steps[name] for name in same if name in steps), None) for same in names)
        return Lineage(labels, merged)


def _file_date(folder: Path) -> str:
    nodes = folder / "nodes.dmp"
    return datetime.fromtimestamp(nodes.stat().st_mtime, UTC).date().isoformat() if is_file(nodes) else ""


def _unpack(archive: Path, folder: Path) -> tuple[Path, str]:
    """Extract the files needed; return their folder and the date the archive gives nodes.dmp."""
    date = ""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for entry in packed.infolist():
                    if Path(entry.filename).name in _FILES:
                        (folder / Path(entry.filename).name).write_bytes(packed.read(entry))
                        date = "{:04d}-{:02d}-{:02d}".format(*entry.date_time[:3])
        else:
            with tarfile.open(archive) as tar:
                for member in tar:
                    content = tar.extractfile(member) if Path(member.name).name in _FILES else None
                    if content is not None:
                        (folder / Path(member.name).name).write_bytes(content.read())
                        date = datetime.fromtimestamp(member.mtime, UTC).date().isoformat()
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            shown_path(archive), f"'{reason_of(error)}'", "a directory, .tar.gz or .zip of an NCBI taxonomy dump"
        ) from None
    return folder, date
