"""The reads that the page draws base by base, and the table that finds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wyr_batch.draw.html import LEGEND, read_html
from wyr_batch.draw.kinds import YES
from wyr_batch.draw.read import Call, DrawnRead, printable
from wyr_batch.report.parts import (
    File,
    decimal,
    escape,
    has_many_labels,
    kind_of,
    legend,
    names_of_ranks,
    note,
    section,
)

_SEARCH = (
    '<p class="search" hidden><label>Find <input type="search" placeholder="name, label, reason" '
    'aria-controls="found"></label> <output data-rows="{}"></output></p>'
)
_LOST = ' class="lost"'


@dataclass(frozen=True, slots=True)
class DrawnPart(DrawnRead):
    """The beginning of a read, or all of it; `said` stands for its facts, which are those of the whole read."""

    said: str = ""

    @property
    def facts(self) -> str:
        return self.said


def reads(files: Sequence[File]) -> str:
    """Return the section; every read says why it was picked."""
    kind, many = kind_of(files), has_many_labels(files)
    drawn = [(i, file, read) for i, file in enumerate(files) for read in file["drawn"]]
    if not drawn:
        return section("reads", kind.rows.capitalize(), note(f"No {kind.row} has a mask."))
    ranks = [] if many else names_of_ranks(files)
    rows = "".join(_row(i, file, read, ranks, len(files) > 1) for i, file, read in drawn)
    names = (kind.row, kind.unit, "mask mean", "segments", *(["labels"] if many else ranks))
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    found = f'<table class="reads" id="found"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    said = (
        f"{kind.count(len(drawn))} of {sum(file['rows'] for file in files):,}: the most and the least confident, "
        "calls that change under the mask, the longest, and some at random, which are the same in every report of a "
        "file. They show the range, not the average."
    )
    key = f'<div class="wyr-read bare">{LEGEND}</div>'
    articles = "".join(_article(i, file, read, len(files) > 1) for i, file, read in drawn)
    articles = f'<div class="articles">{articles}</div>'
    title = "Texts word by word" if kind.is_text else f"{kind.rows.capitalize()} {kind.letter} by {kind.letter}"
    return section(
        "reads",
        title,
        note(said),
        *_without_bases(files),
        legend(files),
        _SEARCH.format(kind.rows),
        found,
        key,
        articles,
    )


def _without_bases(files: Sequence[File]) -> Iterator[str]:
    for file in files:
        if file["drawn"] and file["bases_from"]["source"] is None:
            of = f" of {escape(file['name'])}" if len(files) > 1 else ""
            kind, reason = kind_of([file]), escape(file["bases_from"]["reason"] or "")
            yield note(f"The {kind.rows}{of} are drawn without their {kind.content}. {reason}", "note warning")


def _key(i: int, read: Mapping[str, Any]) -> str:
    return f"f{i}-row{read['row'] + 1}"


def reasons(file: File, read: Mapping[str, Any]) -> list[str]:
    """Return why a read was picked, in words."""
    last = file["ranks"][-1]["name"]
    return [_reason(why, last) for why in read["why"]]


def _reason(reason: str, last: str) -> str:
    """Return a reason in words; of several labels it says which one it is about, else it is about the last rank."""
    why, _, label = reason.partition(": ")
    words = {
        "sure": f"among the most confident ({label or last})",
        "unsure": f"among the least confident ({label or last})",
        "changed": "call changes under the mask",
        "longest": "among the longest",
        "windowed": "several windows",
        "random": "picked at random",
    }
    return words.get(why, why)


def _row(i: int, file: File, read: Mapping[str, Any], ranks: Sequence[str], several: bool) -> str:
    by_rank = {call["rank"]: call for call in read["calls"]}
    key = f'<span class="key s{i}">{escape(file["name"])}</span>, ' if several else ""
    why = f"<small>{key}{escape(', '.join(reasons(file, read)))}</small>"
    name = f'<a href="#{_key(i, read)}">{escape(drawn_part(file, read).title)}</a>{why}'
    cells = [
        (kind_of([file]).unit, f"{read['length']:,}"),
        ("mask mean", decimal(read["mask_mean"])),
        ("segments", f"{read['segments']:,}"),
        *((escape(rank), _call(by_rank.get(rank))) for rank in ranks),
        *([] if ranks else [("labels", _labels(file, read))]),
    ]
    tds = "".join(f'<td data-name="{label}">{cell}</td>' for label, cell in cells)
    return f'<tr data-read="{_key(i, read)}"><th scope="row">{name}</th>{tds}</tr>'


def _labels(file: File, read: Mapping[str, Any]) -> str:
    """Return the labels that a text has, plain or under the mask, and how probable each is."""
    found = []
    for call in drawn_part(file, read).told_calls:
        yes = [None if prob is None else prob if label == YES else 1 - prob for label, prob in _both(call)]
        if YES in (call.label, call.masked_label) and yes[0] is not None:
            masked = "" if yes[1] is None else f" <small{_LOST * (not call.is_kept)}>→ {yes[1]:.2f}</small>"
            found.append(f"<div>{escape(call.rank)} {yes[0]:.2f}{masked}</div>")
    return "".join(found) or "–"


def _both(call: Call) -> tuple[tuple[str | None, float | None], ...]:
    return (call.label, call.prob), (call.masked_label, call.masked_prob)


def _call(call: Mapping[str, Any] | None) -> str:
    """Return a call, and what becomes of it under the mask."""
    if call is None or call["prob"] is None:
        return "–"
    plain = f"{escape(call['label'] or 'no call')} {call['prob']:.2f}"
    if call["masked_prob"] is None:
        return plain
    changes = call["label"] is not None and call["label"] != call["masked_label"]
    masked = f"{escape(call['masked_label'] or 'no call')} " if changes else ""
    return f"{plain} <small{_LOST * changes}>→ {masked}{call['masked_prob']:.2f}</small>"


def _article(i: int, file: File, read: Mapping[str, Any], several: bool) -> str:
    chips = "".join(f"<li>{escape(why)}</li>" for why in reasons(file, read))
    key = f'<li class="key s{i}">{escape(file["name"])}</li>' if several else ""
    drawn = read_html(drawn_part(file, read), legend=f'<ul class="why">{key}{chips}</ul>')
    return f'<article id="{_key(i, read)}">{drawn}</article>'


def drawn_part(file: File, read: Mapping[str, Any]) -> DrawnPart:
    """Return a read of the JSON as the drawing takes it."""
    kind = kind_of([file])
    said = [] if read["status"] == "ok" else [printable(read["status"].replace("_", " "))]
    said += [kind.length(read["length"]), f"mask mean {decimal(read['mask_mean'])}", f"row {read['row'] + 1:,}"]
    if read["drawn_bp"] < read["length"]:
        said.append(f"drawn up to {kind.letter} {read['drawn_bp']:,}")
    calls = (
        Call(*(call[name] for name in ("rank", "label", "prob", "masked_label", "masked_prob")))
        for call in read["calls"]
    )
    return DrawnPart(
        read["read_id"],
        read["mate"],
        read["drawn_bp"],
        read["status"],
        read["bases"],
        np.array(read["values"], np.float32),
        np.array(read["starts"], np.int32),
        tuple(calls),
        ends=None if read["ends"] is None else np.array(read["ends"], np.int32),
        kept=None if read["kept"] is None else tuple((start, end) for start, end in read["kept"]),
        kind=kind,
        said=", ".join(said),
    )
