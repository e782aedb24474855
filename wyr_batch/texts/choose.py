"""Which columns of a table hold the texts, their second texts and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wyr_batch.errors import InputError
from wyr_batch.reads.records import shown

_USUAL = ("text", "sentence")
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class TextColumns:
    """The columns that a user asks for.

    Attributes:
        text: None takes `text`, else `sentence`, else the only column of strings.
        pair: of the second texts; None: there are no pairs.
        id: of the names; None: rows are called by their numbers.
    """

    text: str | None = None
    pair: str | None = None
    id: str | None = None

    @property
    def flags(self) -> list[str]:
        """The options that say so."""
        given = (("--text-column", self.text), ("--pair-column", self.pair), ("--id-column", self.id))
        return [flag for flag, name in given if name is not None]


USUAL_COLUMNS = TextColumns()


class Chosen(NamedTuple):
    """Names of columns that are there."""

    text: str
    pair: str | None
    id: str | None


def choose_columns(asked: TextColumns, columns: Mapping[str, bool] | Sequence[tuple[str, bool]], where: str) -> Chosen:
    """Return which columns to read.

    Args:
        columns: names, and whether they hold strings.
        where: the file, for messages.
    Raises: InputError if a column is not there, is there twice, or if it is not clear which one holds the texts.
    """
    pairs = list(columns.items()) if isinstance(columns, Mapping) else list(columns)
    names = [name for name, _ in pairs]
    for flag, name in (("--text-column", asked.text), ("--pair-column", asked.pair), ("--id-column", asked.id)):
        if name is not None and name not in names:
            raise InputError(where, f"no column {shown(name)}", f"one of {_listed(names)}", f"Mend {flag}.")
    text = asked.text
    if text is None:
        strings = [name for name, is_string in pairs if is_string]
        usual = [name for name in _USUAL if name in names]
        left = [name for name in strings if name not in (asked.pair, asked.id)]
        if not usual and len(left) != 1:
            got = f"the columns of strings {_listed(left)}" if left else f"no column of strings among {_listed(names)}"
            raise InputError(where, got, "a column 'text' or 'sentence', or one of strings", "Name it: --text-column.")
        text = usual[0] if usual else left[0]
    chosen = Chosen(text, asked.pair, asked.id)
    for name in chosen:
        if name is not None and names.count(name) > 1:
            raise InputError(
                where, f"{names.count(name)} columns {shown(name)}", "one", "Give columns names of their own."
            )
    return chosen


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(shown, names[:_MOST_SHOWN])) + more
