"""Masks files -> one JSON document with every number of the report; docs/report.md describes each field."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from wyr_batch._version import __version__
from wyr_batch.checks.fields import Fields
from wyr_batch.draw.kinds import is_multi_label
from wyr_batch.errors import InputError
from wyr_batch.masks.bases import SEQUENCE, bases_of
from wyr_batch.masks.drawn import MASKED, MASKED_PROB, PROB, drawn_read
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import TOKEN_END, MaskRows
from wyr_batch.report.counting.picks import Picker, rows_at
from wyr_batch.report.counting.tally import Tally
from wyr_batch.rows.counts import Counts

SCHEMA_VERSION = 1
DRAWN_READS = 20
FEWEST_DRAWN = 4  # of each of several files
DRAWN_TOKENS = 300
_NEEDED = ("read_id", "mate", "length", "n_tokens", "status", "mask", "token_start", "segments")


def gather(
    files: Sequence[MaskFile],
    *,
    reads: Sequence[str] = (),
    title: str | None = None,
    show: Callable[[float, str], None] = lambda share, text: None,
) -> dict[str, Any]:
    """Return what the report shows.

    Args:
        reads: where the reads lie now, for the bases of those that are drawn; none: where they lay at the run.
        show: is told the share that is done, and of what.
    Raises: InputError.
    """
    n_rows = max(sum(masks.n_rows for masks in files), 1)
    n_drawn = max(FEWEST_DRAWN, DRAWN_READS // len(files))
    done, found = 0, []
    for name, masks in zip(short_names([masks.shown for masks in files]), files, strict=True):

        def seen(n: int, what: str, before: int = done, name: str = name) -> None:
            show((before + n) / n_rows, f"{name}: {what}")

        found.append({"name": name, **_file(masks, n_drawn, reads, seen)})
        done += masks.n_rows
    return {"schema_version": SCHEMA_VERSION, "wyr_batch": __version__, "title": title, "files": found}


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names of paths, each with as many folders as tell it from the others.

    >>> short_names(["a/masks.parquet", "b/masks.parquet", "c/other.parquet"])
    ['a/masks.parquet', 'b/masks.parquet', 'other.parquet']
    """
    parts = [PurePath(path).parts for path in paths]
    names = []
    for own in parts:
        n = next((n for n in range(1, len(own)) if sum(part[-n:] == own[-n:] for part in parts) == 1), len(own))
        names.append(os.path.join(*own[-n:]) if own else "")
    return names


def _file(masks: MaskFile, n_drawn: int, reads: Sequence[str], seen: Callable[[int, str], None]) -> dict[str, Any]:
    """Return the numbers of one file."""
    has_masked = [rank + MASKED in masks and rank + MASKED_PROB in masks for rank in masks.ranks]
    has_ends = TOKEN_END in masks
    tally = Tally(masks.shown, masks.ranks, has_masked, has_ends=has_ends, has_words=has_ends and masks.kind.is_text)
    picker = Picker(n_drawn, masks.ranks, has_masked)
    for rows in masks.rows(_columns(masks)):
        tally.add(rows)
        picker.add(rows)
        seen(tally.n_rows, f"{tally.n_rows:,} rows")
    many_labels = is_multi_label({label for rank in tally.ranks for label in rank.labels}, len(tally.ranks))
    picked = picker.picked(tally.shortest_bp != tally.longest_bp, many_labels)
    seen(tally.n_rows, f"{masks.kind.content} of the {masks.kind.rows} to draw")
    bases, bases_from = _bases(masks, picked, reads)
    columns = [*_columns(masks), *([SEQUENCE] if SEQUENCE in masks else [])]
    rows_of = dict(rows_at(masks, picked.keys(), columns))
    return {
        "path": masks.shown,
        "input": masks.kind.name,
        "unit": masks.kind.unit,
        "token_ends": has_ends,
        "run": _run(masks),
        "rates": masks.rates or None,
        "rows": tally.n_rows,
        "explained": tally.n_explained,
        "bases": tally.n_bases,
        "tokens": tally.n_tokens,
        "shortest_bp": tally.shortest_bp,
        "longest_bp": tally.longest_bp,
        "statuses": dict(tally.statuses.most_common()),
        "failures": _failures(masks, tally),
        "failed_ids": tally.failed_ids,
        "ranks": [rank.as_json() for rank in tally.ranks],
        "lineages": tally.lineages.as_json(),
        "mask": tally.masks.as_json(),
        "positions": tally.masks.positions_as_json(),
        "segments": tally.segments.as_json(),
        "words": None if tally.words is None else tally.words.as_json(),
        "bases_from": bases_from,
        "drawn": [
            {"row": row, "why": why, **_drawn(rows_of[row], bases.get(row, ""), masks)} for row, why in picked.items()
        ],
    }


def _columns(masks: MaskFile) -> list[str]:
    """Return the columns that are counted, without those that are large and not looked at."""
    calls = [rank + end for rank in masks.ranks for end in ("", PROB, MASKED, MASKED_PROB)]
    return list(dict.fromkeys([*_NEEDED, *(name for name in calls if name in masks)]))


def _run(masks: MaskFile) -> dict[str, Any] | None:
    """Return how the file was made, None if its footer does not say."""
    made, options = masks.footer, masks.run.get("options", {})
    if not made and not masks.run:
        return None
    texts = ("version", "bundle", "bundle_sha256", "runtime", "device", "dtype", "mask_dtype")
    lists = ("inputs", "explain")
    return {
        **{name: _text(made.get(name)) for name in texts},
        **{name: [str(item) for item in found] if isinstance(found := made.get(name), list) else [] for name in lists},
        "options": options,
        "parts": len(masks.parts),
    }


def _failures(masks: MaskFile, tally: Tally) -> dict[str, int] | None:
    """Return failed reads by reason; None where the footer does not know, or speaks of other rows than are here."""
    n_failed = tally.statuses["failed"]
    if not n_failed or masks.counts.get("reads") != tally.n_rows:
        return None if n_failed else {}
    failures = Counts.from_json(Fields(masks.counts, f"{masks.shown}, footer wyr_counts", InputError)).failures
    return dict(failures.most_common()) if failures.total() == n_failed else None


def _bases(
    masks: MaskFile, picked: Mapping[int, object], reads: Sequence[str]
) -> tuple[dict[int, str], dict[str, str | None]]:
    """Return bases of the picked rows, and where they are from: `source`, or `reason` why there are none.

    Raises: InputError if `reads` are named and are not those of the rows.
    """
    if not picked:
        return {}, {"source": None, "reason": None}
    if SEQUENCE in masks:
        found = rows_at(masks, picked.keys(), ["read_id", SEQUENCE])
        texts = {row: rows.column(SEQUENCE)[0].as_py() for row, rows in found}
        upper = str if masks.kind.is_text else str.upper
        return {row: upper(str(text or "")) for row, text in texts.items()}, {"source": SEQUENCE, "reason": None}
    try:
        return bases_of(masks, picked.keys(), reads), {"source": "inputs", "reason": None}
    except InputError as error:
        if reads:
            raise
        return {}, {"source": None, "reason": str(error)}


def _drawn(row: MaskRows, bases: str, masks: MaskFile) -> dict[str, Any]:
    """Return a read as the page draws it; of a long one only its first tokens."""
    read = drawn_read(row, 0, bases, masks.ranks, kind=masks.kind)
    n = min(len(read.values), DRAWN_TOKENS)
    end = int(read.starts[n]) if n < len(read.starts) else read.length
    return {
        "read_id": str(read.read_id),
        "mate": int(read.mate),
        "length": int(read.length),
        "status": str(read.status),
        "segments": len(read.segments()),
        "mask_mean": _number(float(np.mean(read.values)) if len(read.values) else None),
        "calls": [
            {
                "rank": call.rank,
                "label": _text(call.label),
                "prob": _number(call.prob),
                "masked_label": _text(call.masked_label),
                "masked_prob": _number(call.masked_prob),
            }
            for call in read.calls
        ],
        "drawn_bp": end,
        "bases": read.bases[:end],
        "values": np.round(read.values[:n].astype(np.float64), 4).tolist(),
        "starts": read.starts[:n].tolist(),
        "ends": None if read.ends is None else read.ends[:n].tolist(),
        "kept": None if read.kept is None else [(start, min(stop, end)) for start, stop in read.kept if start < end],
    }


def _text(label: object) -> str | None:
    return None if label is None else str(label)


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 6)
