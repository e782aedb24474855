"""Labelled tables of texts and proteins into a training Parquet.

    reviews.csv | .tsv | .jsonl | .parquet, or a folder that datasets' save_to_disk wrote; by the name
    a column of texts, one of second texts (pairs), one of names, one that says the part, one of rationales
    labels   one column, a label a row             -> the rank `label`
             one column of lists of labels         -> a rank for each label, no or yes
             several columns of 0 and 1            -> a rank for each column, no or yes

A rationale is a list of spans [start, end) in code points; in CSV and TSV it is written as JSON. The spans of a pair
are counted in the first text, a line break and the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wyr_batch.checks.files import exists, shown_path
from wyr_batch.checks.outputs import Source
from wyr_batch.errors import InputError, UsageError
from wyr_batch.reads.chunk import BETWEEN_PAIR
from wyr_batch.texts.choose import USUAL_COLUMNS, TextColumns, choose_columns

from ..labelled import NO_YES
from ..lineages import Labels
from ..prepare import Counts, check_output, prepare
from ..request import RATIONALE, SECOND, SplitRule
from ..sources import SPLITS, Piece
from .tables import TABLES, batches, class_names, column_kinds

SINGLE = "label"  # the rank of a classifier of one label a text
USUAL_LABELS = ("label", "labels")
_YES, _NO = (True, "1", "true", "yes"), (False, "0", "false", "no")  # 1 is True


@dataclass(frozen=True)
class TextRequest:
    """Which columns of tables to take.

    Attributes:
        kind: 'text' or 'proteins'.
        columns: of the texts, the second texts and the names.
        labels: columns of labels; none given: `label` or `labels`.
        label_names: what the labels 0, 1, 2 ... are called.
        split: column that says the part.
        rationale: column of spans.
    """

    kind: str
    columns: TextColumns = USUAL_COLUMNS
    labels: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    split: str | None = None
    rationale: str | None = None


def prepare_texts(
    paths: Sequence[Path], output: Path, request: TextRequest, rule: SplitRule, incomplete: str = "drop"
) -> Counts:
    """Prepare tables, one after the other into one training Parquet.

    Args:
        incomplete: 'drop' texts that lack a label, or keep them with a 'null' one.
    Raises: UsageError, OutputError, InputError.
    """
    check_output(output, [Source("the source", path) for path in paths])
    for path in paths:
        if not exists(path):
            raise InputError(shown_path(path), "no such file", TABLES, "Check the path.")
    tables = [_Table(path, request) for path in paths]
    if not tables:
        raise UsageError("SOURCES", "none", "tables of texts with labels")
    shapes = {table.is_multi for table in tables}
    if len(shapes) > 1:
        raise InputError(
            shown_path(paths[-1]), "labels of another kind than in the first table", "one kind", "Prepare them apart."
        )
    if not tables[0].is_multi:
        ranks = [SINGLE]
    elif len(tables[0].labels) > 1:
        ranks = list(tables[0].labels)
    else:
        ranks = sorted(set().union(*(table.listed() for table in tables)))
    others = [name for name, column in ((SECOND, request.columns.pair), (RATIONALE, request.rationale)) if column]
    counts = Counts()
    made = {"sources": [path.name for path in paths], "incomplete": incomplete}
    pieces = (piece for table in tables for piece in table.pieces(ranks))
    return prepare(pieces, ranks, output, rule, counts, incomplete, made, request.kind, others)


class _Table:
    """A table and which of its columns are what.

    Attributes:
        labels: its columns of labels.
        is_multi: a row may have several labels.
    """

    def __init__(self, path: Path, request: TextRequest) -> None:
        self.path, self.request, self.shown = path, request, shown_path(path)
        kinds = column_kinds(path)
        names = list(kinds)
        usual = [name for name in USUAL_LABELS if name in names][:1]
        self.labels = request.labels or tuple(usual)
        if not self.labels:
            raise InputError(
                self.shown, f"the columns {', '.join(names)}", "one of labels", "Name it: --label-columns."
            )
        taken = {*self.labels, request.split, request.rationale}
        self.chosen = choose_columns(
            request.columns, {name: is_text for name, is_text in kinds.items() if name not in taken}, self.shown
        )
        for flag, wanted in (
            ("--label-columns", self.labels),
            ("--split", (request.split,)),
            ("--rationale-column", (request.rationale,)),
        ):
            for name in wanted:
                if name is not None and name not in names:
                    raise InputError(self.shown, f"the columns {', '.join(names)}", f"{name!r} too", f"Mend {flag}.")
        self.wanted = [name for name in dict.fromkeys((*self.chosen, *taken)) if name is not None]
        self.names = request.label_names or class_names(path, self.labels[0])
        first = next(batches(path, self.wanted), {})
        is_list = any(isinstance(value, list) for value in first.get(self.labels[0], ()))
        self.is_multi = is_list or len(self.labels) > 1

    def listed(self) -> set[str]:
        """Return every label of a column of lists."""
        found: set[str] = set()
        for batch in batches(self.path, self.wanted):
            for value in batch[self.labels[0]]:
                found.update(self._name(label) for label in value or [])
        return found

    def pieces(self, ranks: Sequence[str]) -> Iterator[Piece]:
        """Yield the rows. Raises: InputError naming one that is not right."""
        done = 0
        request = self.request
        for batch in batches(self.path, self.wanted):
            n = len(batch[self.chosen.text])
            names = batch[self.chosen.id] if self.chosen.id else [None] * n
            headers = [
                f"{self.path.stem} {done + i + 1}" if name is None else str(name) for i, name in enumerate(names)
            ]
            rows = range(done + 1, done + n + 1)
            texts = [self._text(value, row) for value, row in zip(batch[self.chosen.text], rows, strict=True)]
            seconds = None
            if self.chosen.pair:
                pairs = zip(batch[self.chosen.pair], rows, strict=True)
                seconds = [None if value is None else self._text(value, row) for value, row in pairs]
            rationales = None
            if request.rationale:
                lengths = [
                    len(text) + (0 if seconds is None or seconds[i] is None else len(BETWEEN_PAIR + str(seconds[i])))
                    for i, text in enumerate(texts)
                ]
                marked = zip(batch[request.rationale], lengths, rows, strict=True)
                rationales = [self._spans(value, length, row) for value, length, row in marked]
            given = zip(zip(*(batch[name] for name in self.labels), strict=True), rows, strict=True)
            labels = [self._labels(values, ranks, row) for values, row in given]
            splits = None
            if request.split:
                splits = [self._split(value, row) for value, row in zip(batch[request.split], rows, strict=True)]
            yield Piece(headers, texts, None, labels, splits, seconds, rationales)
            done += n

    def _wrong(self, row: int, column: str | None, value: object, expected: str) -> InputError:
        return InputError(f"{self.shown}, row {row}, column {column!r}", f"{value!r}"[:80], expected)

    def _text(self, value: object, row: int) -> str:
        if value is None:
            return ""
        if not isinstance(value, str) or any(odd == "\0" or "\ud800" <= odd <= "\udfff" for odd in value):
            raise self._wrong(row, self.chosen.text, value, "text")
        return value

    def _split(self, value: object, row: int) -> str:
        if value not in SPLITS:
            raise self._wrong(row, self.request.split, value, ", ".join(SPLITS))
        return str(value)

    def _labels(self, values: Sequence[Any], ranks: Sequence[str], row: int) -> Labels:
        """Return one label a rank, None where it is not known."""
        if not self.is_multi:
            return (None if values[0] in (None, "") else self._name(values[0], row),)
        if len(self.labels) > 1:
            return tuple(self._yes_or_no(value, row, self.labels[i]) for i, value in enumerate(values))
        if values[0] is None:
            return (None,) * len(ranks)
        if not isinstance(values[0], list):
            raise self._wrong(row, self.labels[0], values[0], "a list of labels")
        present = {self._name(label, row) for label in values[0]}
        return tuple(NO_YES[rank in present] for rank in ranks)

    def _yes_or_no(self, value: object, row: int, column: str) -> str | None:
        if value in (None, ""):
            return None
        key: Any = value.strip().lower() if isinstance(value, str) else value
        if isinstance(key, str | int | float) and (key in _YES or key in _NO):
            return NO_YES[key in _YES]
        raise self._wrong(row, column, value, "0 or 1")

    def _name(self, value: object, row: int = 0) -> str:
        """Return what a label is called."""
        if isinstance(value, list | dict) or (isinstance(value, float) and not value.is_integer()):
            raise self._wrong(row, self.labels[0], value, "a label")
        text = str(int(value)) if isinstance(value, float) else str(value)
        if not self.names or not (text.isascii() and text.isdigit()):
            return text
        if int(text) >= len(self.names):
            advice = f"0 to {len(self.names) - 1}, a label of {', '.join(self.names)}"
            raise self._wrong(row, self.labels[0], value, advice)
        return self.names[int(text)]

    def _spans(self, value: object, length: int, row: int) -> list[list[int]] | None:
        """Return spans, sorted, of a text of so many code points."""
        expected = f"a list of spans [start, end) from 0 to {length}"
        if value in (None, ""):
            return None
        try:
            spans: Any = json.loads(value) if isinstance(value, str) else value
            found = sorted([int(start), int(end)] for start, end in spans)
        except (ValueError, TypeError):
            raise self._wrong(row, self.request.rationale, value, expected) from None
        if any(not 0 <= start < end <= length for start, end in found):
            raise self._wrong(row, self.request.rationale, value, expected)
        return found
