"""Ranks: the classification heads of an Explanandum and their labels in class order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wyr_batch.checks.fields import Fields
from wyr_batch.errors import ModelError, WyrError

# Columns of the output that are not of a rank; `sequence` is kept free.
FIXED_COLUMNS = (
    *("file", "read_id", "mate", "length", "n_tokens", "status", "mask", "token_start", "segments", "mask_mean"),
    "sequence",
    "token_end",
)


# Ranks of the taxonomy with the letters that reports in the style of Kraken have for them. Source: Kraken 2's manual,
# "Sample Report Output Format"; since 2025 NCBI calls superkingdoms domains.
RANK_CODES = {
    "superkingdom": "D",
    "domain": "D",
    "kingdom": "K",
    "phylum": "P",
    "class": "C",
    "order": "O",
    "family": "F",
    "genus": "G",
    "species": "S",
}
ROOT_CODE = "R"


@dataclass(frozen=True, slots=True)
class Rank:
    """One classification head: its name (superkingdom, phylum, ...) and its labels in class order."""

    name: str
    labels: tuple[str, ...]


def rank_slices(sizes: Sequence[int]) -> list[slice]:
    """Return where each rank's classes stand among all C classes, concatenated in rank order.

    >>> rank_slices([2, 3])
    [slice(0, 2, None), slice(2, 5, None)]
    """
    bounds = [0, *itertools.accumulate(sizes)]
    return [slice(start, end) for start, end in itertools.pairwise(bounds)]


def ranks_from_json(entries: Sequence[Fields]) -> list[Rank]:
    """Return ranks from the `ranks` list of bundle.json or labels.json. Raises: the error of the fields."""
    return [Rank(entry.text("name"), _labels(entry)) for entry in entries]


def _labels(entry: Fields) -> tuple[str, ...]:
    """Return the labels of a rank; numbers, as of taxa, are taken as texts."""
    labels = entry.content.get("labels")
    if isinstance(labels, list) and all(type(label) in (str, int, float) for label in labels):
        return tuple(map(str, labels))
    return tuple(entry.texts("labels"))


def ranks_to_json(ranks: Sequence[Rank]) -> list[dict[str, Any]]:
    """Inverse of `ranks_from_json`."""
    return [{"name": rank.name, "labels": list(rank.labels)} for rank in ranks]


def coarse_to_fine(ranks: Sequence[str]) -> list[str]:
    """Return names of ranks in the order of the taxonomy if it has all of them, else as they are.

    >>> coarse_to_fine(["genus", "superkingdom"]), coarse_to_fine(["serotype", "genus"])
    (['superkingdom', 'genus'], ['serotype', 'genus'])
    """
    order = list(RANK_CODES)
    if all(rank.lower() in order for rank in ranks):
        return sorted(ranks, key=lambda rank: order.index(rank.lower()))
    return list(ranks)


def rank_codes(ranks: Sequence[str]) -> list[str]:
    """Return Kraken's code of each rank; one without a letter of its own counts on from the rank above it.

    >>> rank_codes(["realm", "superkingdom", "clade", "group", "phylum", "strain"])
    ['R1', 'D', 'D1', 'D2', 'P', 'P1']
    """
    codes: list[str] = []
    letter, n_below = ROOT_CODE, 0
    for rank in ranks:
        code = RANK_CODES.get(rank.lower())
        if code and code not in codes:
            letter, n_below = code, 0
        else:
            n_below += 1
            code = f"{letter}{n_below}"
        codes.append(code)
    return codes


def rank_columns(name: str) -> list[str]:
    """Return the output's columns of a rank, with every option on."""
    called = [name, f"{name}_masked"]
    return [*called, *(f"{call}_prob" for call in called), f"{name}_top", f"mask_{name}"]


def check_rank_names(names: Sequence[str], where: str, error: type[WyrError] = ModelError) -> None:
    """Raise `error` if two columns of the output would have one name, or two that differ in case alone.

    Args:
        where: what holds the ranks, for the message.
    """
    taken = dict.fromkeys(FIXED_COLUMNS, "a column that every output has")
    for name in names:
        if not name.strip():
            raise error(where, f"a rank called {name!r}", "a name", "Give it one.")
        for column in rank_columns(name):
            if (holder := taken.get(column.lower())) is not None:
                raise error(
                    where,
                    f"the rank {name!r}, whose column {column!r} would be {holder}",
                    "names that differ",
                    "Rename the rank.",
                )
        taken |= {column.lower(): f"one of the rank {name!r}" for column in rank_columns(name)}


def check_ranks(ranks: Sequence[Rank], where: str, error: type[WyrError] = ModelError) -> None:
    """Raise `error` unless every rank has a name of its own and labels that differ, all of them texts of Unicode."""
    if not ranks:
        raise error(where, "no rank", "at least one")
    for text in (text for rank in ranks for text in (rank.name, *rank.labels)):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise error(where, f"the name or label {text!r} with half a character", "whole ones", "Mend it.")
    check_rank_names([rank.name for rank in ranks], where, error)
    for rank in ranks:
        if not rank.labels:
            raise error(where, f"no labels of the rank {rank.name!r}", "at least one")
        if len(set(rank.labels)) < len(rank.labels):
            twice = next(label for label in rank.labels if rank.labels.count(label) > 1)
            raise error(where, f"the label {twice!r} of the rank {rank.name!r} twice", "each once")
