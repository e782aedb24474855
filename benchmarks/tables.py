"""What the tables of BENCHMARKS.md are made of: Markdown, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table without a newline at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def correct(rows: Sequence[Json]) -> tuple[list[Json], str]:
    """Return the rows to print, and a sentence on the others."""
    kept = [row for row in rows if row["correct"]]
    left = len(rows) - len(kept)
    return kept, f"\n\n{left} rows that were not correct are not shown." if left else ""


def shown(spread: Json, form: str = ",.0f") -> str:
    """Return `median (least to most)` of what `kit.spread` gave."""
    return f"{spread['median']:{form}} ({spread['min']:{form}} to {spread['max']:{form}})"


def figure(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
