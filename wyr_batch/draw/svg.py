"""One read as an SVG: a picture of its own, for pages and papers.

Colours are attributes, which every program reads, in the light palette; a style sheet gives browsers the dark one.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

from wyr_batch.draw.direction import from_left_to_right, is_right_to_left, levels_in_line, levels_of
from wyr_batch.draw.palette import DARK, LIGHT
from wyr_batch.draw.read import DrawnRead
from wyr_batch.draw.running import Cluster, clusters, runs_by_cluster, wrapped
from wyr_batch.draw.runs import LEVELS, Run, cut_runs, runs_of

BLOCK_BP, LINE_BP = 10, 80
# px
_LETTER, _LINE, _CALL, _MARGIN, _SCALE, _BAR_HEIGHT = 7.8, 24, 20, 18, 6, 60
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def read_svg(read: DrawnRead) -> str:
    """Return a read as the text of an SVG file; without bases, its mask is drawn as bars."""
    calls = _columns(read)
    number = (len(str(read.length)) + 1) * _LETTER
    line = number + (LINE_BP // BLOCK_BP * (BLOCK_BP + 1) - 1) * _LETTER
    width = max(line, len(read.title) * _LETTER, sum(map(_column_width, calls)))
    parts = [*_head(read, width), *_calls(calls)]
    top = _MARGIN + 56.0 + _CALL * len(read.told_calls)
    if read.bases and read.kind.is_text:
        lines = list(wrapped(list(clusters(read.bases)), LINE_BP))
        parts += _running(read, lines, top, number)
        top += _LINE * len(lines)
    elif read.bases:
        parts += _bases(read, top, number)
        top += _LINE * -(-read.length // LINE_BP)
    elif len(read.values):
        parts += _bars(read, top, width)
        top += _BAR_HEIGHT + 30
    return _document(read, width + 2 * _MARGIN, top + _MARGIN - 6, parts)


def _document(read: DrawnRead, width: float, height: float, parts: list[str]) -> str:
    names = ("paper", "ink", "dim", "mask", "line")
    dark = "".join(f".wyr-svg .{name}{{fill:{getattr(DARK, name)}}}" for name in names)
    frame = f'<rect class="paper edge" x=".5" y=".5" width="{width - 1:.1f}" height="{height - 1:.1f}" rx="8" '
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" font-family="{_FONT}" font-size="13" role="img" class="wyr-svg">\n'
        f"<title>{escape(read.title)}</title>\n"
        f"<style>@media (prefers-color-scheme:dark){{{dark}.wyr-svg .edge{{stroke:{DARK.edge}}}}}</style>\n"
        f'{frame}fill="{LIGHT.paper}" stroke="{LIGHT.edge}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _head(read: DrawnRead, width: float) -> Iterator[str]:
    y = _MARGIN + 10
    yield _text(_MARGIN, y, "ink", read.title, ' font-weight="bold"')
    y += 20
    yield _text(_MARGIN, y, "dim", read.facts)
    segment = _MARGIN + width - 7 * _LETTER
    yield _rect("line", segment, y + 4, 7 * _LETTER, 2)
    yield _text(segment, y, "dim", "segment")
    yield _text(segment - 3 * _LETTER, y, "dim", "1")
    scale = segment - 4 * _LETTER - LEVELS * _SCALE
    for level in range(LEVELS):
        yield _shade(scale + level * _SCALE, y - 10, _SCALE, 12, level)
    yield _text(scale - 7 * _LETTER, y, "dim", "mask 0")


def _columns(read: DrawnRead) -> list[tuple[str, list[str]]]:
    """Return the calls as columns: colour, and a text a rank."""
    plain, masked = ([call.texts[i] for call in read.told_calls] for i in (0, 1))
    return [
        ("dim", [call.heading for call in read.told_calls]),
        ("ink", plain),
        ("ink", [f"→ {text}" if text else "" for text in masked]),
        ("ink", [call.verdict for call in read.told_calls]),
    ]


def _column_width(column: tuple[str, list[str]]) -> float:
    return (max(map(len, column[1]), default=0) + 2) * _LETTER


def _calls(columns: list[tuple[str, list[str]]]) -> Iterator[str]:
    x = float(_MARGIN)
    for column in columns:
        for i, text in enumerate(column[1]):
            if text:
                yield _text(x, _MARGIN + 54 + _CALL * i, column[0], text)
        x += _column_width(column)


def _bases(read: DrawnRead, top: float, number_width: float) -> Iterator[str]:
    for i, block in enumerate(cut_runs(runs_of(read), BLOCK_BP)):
        line, place = divmod(i * BLOCK_BP, LINE_BP)
        y = top + _LINE * line + 14
        left = _MARGIN + number_width + place // BLOCK_BP * (BLOCK_BP + 1) * _LETTER
        if place == 0:
            yield _text(left - _LETTER, y, "dim", str(block[0].start + 1), ' text-anchor="end"')
        for run in block:
            yield from _ground(run, left + run.start % BLOCK_BP * _LETTER, y)
        letters = read.letters[block[0].start : block[-1].end]
        length = f' textLength="{len(letters) * _LETTER:.1f}" lengthAdjust="spacingAndGlyphs"'
        yield _text(left, y, "ink", letters, length)


def _running(read: DrawnRead, lines: list[list[Cluster]], top: float, number_width: float) -> Iterator[str]:
    """Yield a text line by line, in pieces of one ground and one direction, each where it stands when the line is read.

    Lines of one paragraph, which ends at a line break, run in one direction.
    """
    drawn = runs_by_cluster([cluster for line in lines for cluster in line], runs_of(read))
    left, row = _MARGIN + number_width, 0
    for paragraph in _paragraphs(lines):
        letters = [cluster for line in paragraph for cluster in line]
        to_left = is_right_to_left(letters)
        levels = dict(zip((cluster.start for cluster in letters), levels_of(letters, to_left), strict=True))
        for line in paragraph:
            y = top + _LINE * row + 14
            row += 1
            yield _text(left - _LETTER, y, "dim", str(line[0].start + 1), ' text-anchor="end"')
            found = levels_in_line(line, [levels[cluster.start] for cluster in line], to_left)
            places = _places(line, from_left_to_right(found), to_left)
            pieces = groupby(zip(line, found, strict=True), key=lambda one: (drawn[one[0].start], one[1]))
            for (run, level), group in pieces:
                yield from _piece([cluster for cluster, _ in group], run, level % 2 == 1, places, left, y)


def _paragraphs(lines: list[list[Cluster]]) -> Iterator[list[list[Cluster]]]:
    """Yield the lines of each paragraph."""
    paragraph: list[list[Cluster]] = []
    for line in lines:
        paragraph.append(line)
        if line[-1].is_break:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph


def _places(line: list[Cluster], order: list[int], to_left: bool) -> dict[int, int]:
    """Return the cell at which each cluster of a line begins, by the place where it starts in the text."""
    places, cell = {}, LINE_BP + 1 - sum(cluster.cells for cluster in line) if to_left else 0
    for i in order:
        places[line[i].start] = cell
        cell += line[i].cells
    return places


def _piece(
    found: list[Cluster], run: Run, to_left: bool, places: dict[int, int], left: float, y: float
) -> Iterator[str]:
    """Yield clusters that stand side by side on one ground."""
    if not (text := "".join(cluster.shown for cluster in found)):
        return
    x = left + min(places[cluster.start] for cluster in found if cluster.shown) * _LETTER
    width = sum(cluster.cells for cluster in found) * _LETTER
    yield from _marks(run, x, y, width)
    more = f' textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve"'
    yield _text(x + width * to_left, y, "ink", text, more + ' direction="rtl"' * to_left)


def _ground(run: Run, x: float, y: float) -> Iterator[str]:
    yield from _marks(run, x, y, (run.end - run.start) * _LETTER)


def _marks(run: Run, x: float, y: float, width: float) -> Iterator[str]:
    if run.level:
        yield _shade(x, y - 13, width, 18, run.level)
    if run.is_kept:
        yield _rect("line", x, y + 5, width, 2)


def _bars(read: DrawnRead, top: float, width: float) -> Iterator[str]:
    """Yield the mask as bars, as wide as their tokens and as high as their level, above the segments."""
    scale = width / read.length
    for run in runs_of(read):
        if run.level is not None:
            height = _BAR_HEIGHT * (run.level + 1) / LEVELS
            x, y = _MARGIN + run.start * scale, top + _BAR_HEIGHT - height
            yield _shade(x, y, (run.end - run.start) * scale, height, run.level)
    for start, end in read.segments():
        yield _rect("line", _MARGIN + start * scale, top + _BAR_HEIGHT + 2, (end - start) * scale, 2)
    yield _text(_MARGIN, top + _BAR_HEIGHT + 20, "dim", "1")
    yield _text(_MARGIN + width, top + _BAR_HEIGHT + 20, "dim", f"{read.length:,}", ' text-anchor="end"')


def _text(x: float, y: float, name: str, text: str, more: str = "") -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" fill="{getattr(LIGHT, name)}"{more}>{escape(text)}</text>'


def _rect(name: str, x: float, y: float, width: float, height: float, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{name}" {place} fill="{getattr(LIGHT, name)}"{more}/>'


def _shade(x: float, y: float, width: float, height: float, level: int) -> str:
    return _rect("mask", x, y, width, height, f' fill-opacity="{level / (LEVELS - 1):.2f}"')
