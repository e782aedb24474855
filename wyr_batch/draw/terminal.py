"""One read in a terminal: coloured by its mask, or as plain text with its segments in brackets.

    read0001  250 bp, 45 tokens, mask mean 0.38
    genus  Saccharomonospora 0.25  → Saccharomonospora 0.13  ✓ kept
      1 CATCGG[GGTG GCCACATC]GT AGCCGATGAT

Coloured lines bring their own ground, for a terminal's is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from wyr_batch.draw.palette import DARK
from wyr_batch.draw.read import DrawnRead
from wyr_batch.draw.running import Cluster, clusters, runs_by_cluster, wrapped
from wyr_batch.draw.runs import KEPT_LEVEL, LEVELS, Run, cut_runs, level_of, runs_of

BLOCK, _MOST_BLOCKS = 10, 10
BARS = "▁▂▃▄▅▆▇█"
_VERDICT = len("✓ kept")
_PLAIN, _BOLD, _DIM = Style(), Style(bold=True), Style(dim=True)
_PAPER = Style(color=DARK.ink, bgcolor=DARK.paper)
_NUMBER = Style(color=DARK.dim, bgcolor=DARK.paper)
_SHADES = [
    Style(color=DARK.ink, bgcolor=DARK.shade(level), underline=level >= KEPT_LEVEL or None) for level in range(LEVELS)
]
_BARS = [Style(color=DARK.line if level >= KEPT_LEVEL else DARK.mask, bgcolor=DARK.paper) for level in range(LEVELS)]

Line = list[tuple[str, Style]]


def read_text(read: DrawnRead, width: int, coloured: bool) -> Text:
    """Return a read as lines of at most `width` letters, but for longer names; without bases, its mask as bars.

    Args:
        coloured: False: no colours, and segments in brackets.
    """
    lines = [*_head(read, width)]
    if read.bases and read.kind.is_text:
        lines += _text_lines(read, width, coloured)
    elif read.bases:
        lines += _base_lines(read, width, _coloured if coloured else _bracketed)
    elif len(read.values):
        lines += _bar_lines(read, width)
    if coloured:
        return Text("\n").join(Text.assemble(*line) for line in lines)
    return Text("\n".join("".join(text for text, _ in line).rstrip() for line in lines))


def _head(read: DrawnRead, width: int) -> Iterator[Line]:
    fits = cell_len(read.title) + 2 + cell_len(read.facts) <= width
    yield [(read.title, _BOLD), *([("  " + read.facts, _DIM)] if fits else [])]
    if not fits:
        yield [(read.facts, _DIM)]
    calls = read.told_calls
    rows = [(call.heading, call.texts[0], f"→ {call.texts[1]}" if call.texts[1] else "") for call in calls]
    sizes = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for (rank, plain, masked), call in zip(rows, calls, strict=True):
        verdict = (call.verdict, _PLAIN if call.is_kept else _BOLD)
        heading = _padded(rank, sizes[0])
        if sum(sizes) + 6 + _VERDICT <= width:
            yield [(heading, _DIM), (_padded(plain, sizes[1]) + _padded(masked, sizes[2]), _PLAIN), verdict]
        else:
            yield [(heading, _DIM), (plain, _PLAIN)]
            yield [(" " * cell_len(heading) + f"{masked}  ", _PLAIN), verdict]


def _padded(text: str, cells: int) -> str:
    return text + " " * (cells - cell_len(text) + 2)


def _base_lines(read: DrawnRead, width: int, drawn: Callable[[Sequence[list[Run]], str], Line]) -> Iterator[Line]:
    """Yield the bases in blocks of ten, as many of them a line as fit, after the number of its first base."""
    letters, blocks = read.letters, list(cut_runs(runs_of(read), BLOCK))
    n_digits = len(str(read.length))
    room = width - n_digits - 1
    n = min(max((room + 1) // (BLOCK + 1), 1), _MOST_BLOCKS)
    while True:
        lines = [drawn(blocks[i : i + n], letters) for i in range(0, len(blocks), n)]
        sizes = [sum(len(text) for text, _ in line) for line in lines]
        if n == 1 or max(sizes) <= room:
            break
        n -= 1
    for i, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        yield [(f"{i * n * BLOCK + 1:>{n_digits}} ", _NUMBER), *line, (" " * (max(sizes) - size), _PAPER)]


def _coloured(blocks: Sequence[list[Run]], letters: str) -> Line:
    line: Line = []
    for block in blocks:
        line += [(" ", _PAPER)] if line else []
        line += [(letters[run.start : run.end], _PAPER if run.level is None else _SHADES[run.level]) for run in block]
    return line


def _bracketed(blocks: Sequence[list[Run]], letters: str) -> Line:
    """Return a line whose segments are in brackets, also where they go on in the next one."""
    text, is_open = "", False
    for block in blocks:
        if is_open and not block[0].is_kept:
            text, is_open = text + "]", False
        text += " " if text else ""
        for run in block:
            if run.is_kept != is_open:
                text, is_open = text + ("]" if is_open else "["), run.is_kept
            text += letters[run.start : run.end]
    return [(text + "]" * is_open, _PLAIN)]


def _text_lines(read: DrawnRead, width: int, coloured: bool) -> Iterator[Line]:
    """Yield a text wrapped at its words, each line after the number of its first character.

    A letter and its marks have the ground of the letter's token.
    """
    found = list(clusters(read.bases))
    drawn = runs_by_cluster(found, runs_of(read))
    n_digits = len(str(read.length))
    # Besides the number: a space that the line ends with, and brackets that are opened and closed again.
    room = max(width - n_digits - 2 - (0 if coloured else 2), 1)
    marked = found if coloured else _with_room(found, drawn)
    lines = list(wrapped(marked, room))
    size = max(sum(cluster.cells for cluster in line) for line in lines)
    for line in lines:
        number = (f"{line[0].start + 1:>{n_digits}} ", _NUMBER)
        if coloured:
            rest = size - sum(cluster.cells for cluster in line)
            alike = groupby(line, key=lambda cluster: (drawn[cluster.start].level, drawn[cluster.start].is_kept))
            parts = [("".join(cluster.shown for cluster in group), _shade(*kind)) for kind, group in alike]
            yield [number, *parts, (" " * rest, _PAPER)]
        else:
            yield [number, (_with_brackets(line, drawn), _PLAIN)]


@cache
def _shade(level: int | None, is_kept: bool) -> Style:
    return Style(color=DARK.ink, bgcolor=DARK.shade(level or 0), underline=is_kept or None)


def _with_room(found: Sequence[Cluster], drawn: Mapping[int, Run]) -> list[Cluster]:
    """Return clusters that are as wide as with the brackets beside them."""
    kept = [False, *(drawn[cluster.start].is_kept for cluster in found), False]
    return [
        replace(cluster, cells=cluster.cells + (kept[i + 1] and not kept[i]) + (kept[i + 1] and not kept[i + 2]))
        for i, cluster in enumerate(found)
    ]


def _with_brackets(line: Sequence[Cluster], drawn: Mapping[int, Run]) -> str:
    """Return the letters of a line with its segments in brackets, also where they go on in the next one."""
    text, is_open = "", False
    for cluster in line:
        if drawn[cluster.start].is_kept != is_open and cluster.shown:
            text, is_open = text + ("]" if is_open else "["), not is_open
        text += cluster.shown
    letters = text.rstrip(" ")
    return letters + "]" * is_open + text[len(letters) :]


def _bar_lines(read: DrawnRead, width: int) -> Iterator[Line]:
    """Yield the mask, a bar a token, each line after the number of its first base."""
    tokens, n_digits = list(read.tokens()), len(str(read.length))
    n = min(max((width - n_digits - 1) // BLOCK, 1), _MOST_BLOCKS) * BLOCK
    for i in range(0, len(tokens), n):
        levels = [level_of(token.value) for token in tokens[i : i + n]]
        bars = [(BARS[level * len(BARS) // LEVELS], _BARS[level]) for level in levels]
        yield [(f"{tokens[i].start + 1:>{n_digits}} ", _NUMBER), *bars]
