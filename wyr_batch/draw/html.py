"""One read as HTML: a fragment for a page or a notebook, and a page of its own.

The fragment fits the width it is given, from a phone up, and follows what the page or the system says of light and
dark. Whatever comes from a file is escaped.
"""

from __future__ import annotations

from html import escape

from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.draw.running import clusters
from wyr_batch.draw.runs import LEVELS, Run, cut_runs, runs_of
from wyr_batch.draw.style import STYLE

__all__ = ["LEGEND", "STYLE", "page_html", "read_html", "styled_html"]

BLOCK_BP = 10
_GAP, _LINE = 0.5, 0.8  # between bars and the lines of segments, and these lines' height; a bar has up to LEVELS

LEGEND = '<div class="wyr-legend">mask 0<span></span>1 <u>segment</u></div>'


def read_html(read: DrawnRead, legend: str = LEGEND) -> str:
    """Return a read as a fragment of HTML; the page has STYLE in its style sheet, once.

    Args:
        read: without bases, its mask is drawn as bars.
        legend: what stands right of the name; empty where the page has LEGEND elsewhere.
    """
    body = (_running if read.kind.is_text else _bases)(read) if read.bases else _bars(read)
    return f'<div class="wyr-read">{_head(read, legend)}{_calls(read.told_calls)}{body}</div>\n'


def styled_html(read: DrawnRead) -> str:
    """Return a read as a fragment that brings its style sheet, for notebooks."""
    return f"<style>\n{STYLE}</style>\n{read_html(read)}"


def page_html(read: DrawnRead) -> str:
    """Return a read as a page of its own."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(read.title)}</title>\n{styled_html(read)}</html>\n"
    )


def _head(read: DrawnRead, legend: str) -> str:
    return (
        f'<div class="wyr-head"><span class="wyr-name">{escape(read.title)}</span>'
        f'<span class="wyr-dim">{escape(read.facts)}</span>{legend}</div>'
    )


def _calls(calls: tuple[Call, ...]) -> str:
    if not calls:
        return ""
    return f'<div class="wyr-calls">{"".join(map(_call, calls))}</div>'


def _call(call: Call) -> str:
    plain, masked = map(escape, call.texts)
    sign, _, word = call.verdict.partition(" ")
    kind = "wyr-kept" if call.is_kept else "wyr-lost"
    return (
        f'<span class="wyr-dim">{escape(call.heading)}</span><span>{plain}</span>'
        f"<span>{f'→&nbsp;{masked}' if masked else ''}</span>"
        f'<span class="{kind}">{sign}<span class="wyr-word"> {word}</span></span>'
    )


def _bases(read: DrawnRead) -> str:
    letters = read.letters
    spans = ("".join(_run(run, letters) for run in block) for block in cut_runs(runs_of(read), BLOCK_BP))
    lines = "".join(f"<span class=wyr-block>{span}</span>" for span in spans)
    return f'<div class="wyr-bases" style="--wyr-n:{len(str(read.length))}">{lines}</div>'


def _run(run: Run, letters: str) -> str:
    part = escape(letters[run.start : run.end])
    return part if run.level is None else f"<i class=wyr-{run.level}>{part}</i>"


def _running(read: DrawnRead) -> str:
    """Return a text as it runs, each line in its own direction; a segment is one element, and a token another in it."""
    shown: list[str] = [""] * len(read.bases)
    for cluster in clusters(read.bases):
        shown[cluster.start] = escape(cluster.shown) or "\n"
    parts, is_open = [], False
    for run in runs_of(read):
        if run.is_kept != is_open:
            parts.append("<u>" if run.is_kept else "</u>")
            is_open = run.is_kept
        part = "".join(shown[run.start : run.end])
        parts.append(f"<i class=wyr-{run.level}>{part}</i>" if run.level and part else part)
    return f'<div class="wyr-text" dir="auto">{"".join(parts)}{"</u>" * is_open}</div>'


def _bars(read: DrawnRead) -> str:
    """Return the mask as bars, as wide as their tokens and as high as their level, above the segments."""
    runs = [(run, run.level) for run in runs_of(read) if run.level is not None]
    if not runs:
        return ""
    bars = "".join(_bar(f"wyr-{level}", run.start, run.end, LEVELS - level - 1, level + 1) for run, level in runs)
    lines = "".join(_bar("wyr-line", start, end, LEVELS + _GAP, _LINE) for start, end in read.segments())
    return (
        f'<svg class="wyr-bar" viewBox="0 0 {read.length} {LEVELS + _GAP + _LINE}" preserveAspectRatio="none" '
        f'role="img" aria-label="mask of {len(read.values)} tokens" shape-rendering="crispEdges">{bars}{lines}</svg>'
        f'<div class="wyr-ends"><span>1</span><span>{read.length:,}</span></div>'
    )


def _bar(kind: str, start: int, end: int, top: float, height: float) -> str:
    return f'<rect class={kind} x="{start}" y="{top}" width="{end - start}" height="{height}"/>'
