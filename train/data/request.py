"""What `train prepare` is asked to do, and whether it fits together: said before anything is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wyr_batch.checks.files import exists, is_folder, shown_path
from wyr_batch.checks.numbers import check_numbers
from wyr_batch.errors import InputError, UsageError
from wyr_batch.ranks import check_rank_names

from ..limits import MOST_SEED, check_counts, check_words
from .sources import FRAGMENTS, is_table

FIXED_COLUMNS = ("header", "sequence", "split")  # of every training Parquet
SECOND, RATIONALE = TEXT_COLUMNS = ("second", "rationale")  # of some; every other one is a rank


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

    def __post_init__(self) -> None:
        check_words([("--split", self.kind, ("hash", "stratified", "column"))])
        check_numbers([("--test-share", self.test_share, 0, 1), ("--validation-share", self.validation_share, 0, 1)])
        check_counts([("--seed", self.seed, 0)], MOST_SEED)
        if self.test_share + self.validation_share >= 1:
            raise UsageError(
                "--test-share, --validation-share",
                f"{self.test_share} and {self.validation_share}",
                "a sum below 1: the rest is for training",
            )


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; without `taxid` each rank is a column of labels."""

    sequence: str = "sequence"
    taxid: str | None = None


COLUMNS = Columns()


def check_training_ranks(ranks: Sequence[str]) -> None:
    """Raise UsageError for ranks whose columns would collide with one another, or with those that are always there."""
    check_rank_names(ranks, "--ranks", UsageError)
    for rank in ranks:
        if rank.lower() in FIXED_COLUMNS:
            raise UsageError("--ranks", f"{rank!r}, a column that every training Parquet has", "another name")
        if rank.lower() in TEXT_COLUMNS:
            raise UsageError("--ranks", f"{rank!r}, a column that a training Parquet may have", "another name")


def checked_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files of the sources, a directory's BERTax lists instead of the directory. Raises: InputError."""
    files: list[Path] = []
    for path in paths:
        if str(path) == "-":
            files.append(path)
        elif is_folder(path):
            found = sorted(path.rglob(f"*{FRAGMENTS}"))
            if not found:
                raise InputError(shown_path(path), f"no *{FRAGMENTS} in this directory", "a BERTax tree or a file")
            files += found
        elif exists(path):
            files.append(path)
        else:
            raise InputError(shown_path(path), "no such file", "labelled sequences", "Check the path.")
    places = Counter(map(os.path.realpath, files))
    for path in files:
        if places[os.path.realpath(path)] > 1:
            raise UsageError(
                "SOURCES", f"{shown_path(path)} more than once", "it once: a sequence would be in two parts"
            )
    return files


def check_request(
    files: Sequence[Path],
    ranks: Sequence[str],
    taxdump: Path | None,
    taxids: Path | None,
    columns: Columns,
    split_column: str | None,
) -> None:
    """Raise UsageError for options that do not fit together, or not to the sources."""
    check_training_ranks(ranks)
    given = {"--sequence-column": columns.sequence, "--taxid-column": columns.taxid, "--split": split_column}
    taken: dict[str, str] = {}
    for flag, name in given.items():
        if name is None:
            continue
        if not name.strip():
            raise UsageError(flag, f"the name {name!r}", "that of a column")
        if name in ranks or name in taken:
            other = taken.get(name, "--ranks")
            raise UsageError(flag, f"{name!r}, which {other} names too", "a column of its own")
        taken[name] = flag
    tables = [path for path in files if is_table(path)]
    others = [path for path in files if not is_table(path)]
    if columns.taxid is not None and (taxdump is None or not tables):
        got = "no --taxdump" if taxdump is None else "no table among SOURCES"
        raise UsageError("--taxid-column", got, "tables with taxids, and --taxdump to look them up in")
    if columns.sequence != COLUMNS.sequence and not tables:
        raise UsageError("--sequence-column", f"{columns.sequence!r} but no table among SOURCES", "one")
    if taxids is not None and all(path.name.endswith(FRAGMENTS) for path in others):
        raise UsageError("--taxids", "no FASTA among SOURCES", "one whose ids to look up", "Leave it out.")
    if others and taxdump is None:
        raise UsageError(shown_path(others[0]), "taxids and no taxonomy", "--taxdump", "Name NCBI's taxdump.tar.gz.")
    if others and split_column is not None:
        got, advice = "a kind of file that has no columns", "Use --split stratified or hash."
        raise UsageError(shown_path(others[0]), got, f"tables with the column {split_column!r}", advice)
