"""Pieces of HTML that several sections use: numbers in words, legends, tables, bars, figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape as escape_html
from typing import Any

from wyr_batch.draw.kinds import KINDS, READS, Kind, is_multi_label
from wyr_batch.draw.read import printable

File = Mapping[str, Any]
Bars = tuple[str, Sequence[float | None], Sequence[str], str]


def escape(text: str) -> str:
    r"""Return text of a file as HTML; what is no printable letter becomes an escape.

    >>> escape("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    return escape_html(printable(text))


def share(part: float | None, whole: float = 1.0, digits: int = 1) -> str:
    """Return a share in per cent; a dash where there is none, and never 100 or 0 of what is not all or nothing.

    >>> share(1, 3), share(9999, 10000), share(1, 5000), share(3, 3), share(0, 0)
    ('33.3 %', '> 99.9 %', '< 0.1 %', '100 %', '–')
    """
    if part is None or not whole:
        return "–"
    value, unit = 100 * part / whole, 10.0**-digits
    if 0 < value < unit / 2:
        return f"< {unit:g} %"
    if 100 - unit / 2 <= value < 100:
        return f"> {100 - unit:g} %"
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.{digits}f} %"


def count(n: int, one: str, many: str = "") -> str:
    """Return a number with what it counts.

    >>> count(1, "read"), count(1200, "read")
    ('1 read', '1,200 reads')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def decimal(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def legend(files: Sequence[File]) -> str:
    """Return which colour is which file; empty for one file."""
    if len(files) < 2:
        return ""
    keys = "".join(f'<li class="s{i}">{escape(file["name"])}</li>' for i, file in enumerate(files))
    return f'<ul class="legend">{keys}</ul>'


def section(key: str, title: str, *content: str) -> str:
    """Return a section that the page's navigation leads to."""
    return f'<section id="{key}"><h2>{escape(title)}</h2>{"".join(content)}</section>\n'


def note(content: str, kind: str = "note") -> str:
    """Return a paragraph of HTML."""
    return f'<p class="{kind}">{content}</p>'


def figure(title: str, picture: str, caption: str = "", kind: str = "") -> str:
    """Return a picture with its title and caption (HTML); a word in its place where there is nothing to draw."""
    body = picture or '<p class="none">No data.</p>'
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><h3>{escape(title)}</h3>{body}{below}</figure>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """Return a table of HTML cells; the first cell of a row names it."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell}</td>" if i else f'<th scope="row">{cell}</th>' for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def bars(title: str, rows: Iterable[Bars], extra: str = "") -> str:
    """Return bars with their labels and values, one a series in each row.

    Args:
        rows: label (HTML), the length of each bar from 0 to 1, what stands beside each, and a class.
        extra: HTML after the title.
    """
    lines = []
    for label, lengths, values, kind in rows:
        drawn = "".join(
            f'<i class="s{i}" style="width:{100 * (length or 0):.2f}%"></i>' for i, length in enumerate(lengths)
        )
        said = "".join(f"<span>{value}</span>" for value in values)
        lines.append(f'<tr class="{kind}"><th scope="row">{label}</th><td class="bar">{drawn}</td><td>{said}</td></tr>')
    caption = f"<caption>{escape(title)} <small>{extra}</small></caption>" if title else ""
    return f'<table class="bars">{caption}<tbody>{"".join(lines)}</tbody></table>'


def kind_of(files: Sequence[File]) -> Kind:
    """Return what the rows of files are, which are compared only if they are of one kind."""
    return KINDS[files[0]["input"]] if files else READS


def has_kmers(files: Sequence[File]) -> bool:
    """True if tokens have no ends of their own, as 6-mers, which follow each other without a gap."""
    return not any(file["token_ends"] for file in files)


def has_many_labels(files: Sequence[File]) -> bool:
    """True if the ranks are the labels of a multi-label classifier, each of them yes or no."""
    ranks = [rank for file in files for rank in file["ranks"]]
    labels = {call["label"] for rank in ranks for call in rank["calls"]}
    return is_multi_label(labels, max((len(file["ranks"]) for file in files), default=0))


def calls_of(rank: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """Return how many rows have a call of a rank, and how many keep it."""
    none = {"label": label, "reads": 0, "kept": None if rank["kept"] is None else 0}
    return next((call for call in rank["calls"] if call["label"] == label), none)


def names_of_ranks(files: Sequence[File]) -> list[str]:
    """Return the ranks of all files, in the order in which they come up."""
    return list(dict.fromkeys(rank["name"] for file in files for rank in file["ranks"]))


def rank_of(file: File, name: str) -> Mapping[str, Any] | None:
    """Return a rank of a file, None if it has none of this name."""
    return next((rank for rank in file["ranks"] if rank["name"] == name), None)
