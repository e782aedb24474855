"""The report's charts as SVG, each from the JSON of one file, or of several that are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wyr_batch.draw.kinds import Kind
from wyr_batch.report.parts import kind_of
from wyr_batch.report.svg import Frame, axes, columns, dot, line, num, picture, steps, ticks

File = Mapping[str, Any]

WIDTH, HEIGHT = 360.0, 216.0
_LEAST_SHARE, _LEAST_READS = 0.05, 10  # of the reads, that must have a place for it to be shown
_MOST_PLACES = 120  # drawn one by one; more are put together
_MOST_BARS = 45
_TAIL = 0.005  # of the reads or segments, that may lie beyond the last bar but one
_HALF_DECADES = (1, 3, 10, 30, 100, 300, 1_000, 3_000)
_DECADES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
SHADES = 7  # of the style sheet: g1 to g7
_Z = 1.96


def mask_histogram(files: Sequence[File]) -> str:
    """Figure 6a: the share of tokens by mask value; empty where no file has tokens."""
    shares = [_shares(file["mask"]["counts"]) for file in files]
    bins = files[0]["mask"]["bins"]
    edges = [i / bins for i in range(bins + 1)]
    fractions = {i / 4: f"{i / 4:g}" for i in range(5)}
    return _distribution(shares, edges, fractions, "mask value", "share of tokens")


def segments_per_read(files: Sequence[File]) -> str:
    """Figure 7a: the share of reads by their number of segments."""
    kind, found = kind_of(files), [file["segments"]["per_read"] for file in files]
    return _counts(found, 0, 1, f"segments of a {kind.row}", f"share of {kind.rows}")


def segment_lengths(files: Sequence[File]) -> str:
    """Figure 7b: the share of segments by length."""
    unit = files[0]["segments"]["length_bin_bp"]
    found = [[0, *file["segments"]["lengths"]] for file in files]
    return _counts(found, 1, unit, f"length of a segment, {kind_of(files).unit}", "share of segments")


def segment_words(files: Sequence[File]) -> str:
    """The share of segments by their number of words; empty where words are not counted."""
    counted = [file["words"]["per_segment"] for file in files if file["words"] is not None]
    return _counts(counted, 1, 1, "words of a segment", "share of segments") if len(counted) == len(files) else ""


def _counts(found: Sequence[Sequence[int]], first: int, unit: int, x_label: str, y_label: str) -> str:
    """Draw how often each whole number occurs; numbers are put together where there are many, and the last bar is
    what lies beyond.

    Args:
        found: per file, counts of the numbers 0, 1, 2, ...
        first: the least number that occurs.
        unit: what a number stands for on the axis.
    """
    n = max(first + 1, *(_end(counts) for counts in found))
    width = -(-(n - first) // _MOST_BARS)
    starts = range(first, n, width)
    last = starts[-1] + width
    beyond = [sum(counts[last:]) for counts in found] if any(sum(counts[last:]) for counts in found) else []
    shares = [
        _shares([*(sum(counts[start : start + width]) for start in starts), *beyond[i : i + 1]])
        for i, counts in enumerate(found)
    ]
    edges = [start - 0.5 for start in (*starts, last, *([last + width] if beyond else []))]
    room = 0.08 * (edges[-1] - edges[0]) if beyond else 0
    labelled = {v: f"{v * unit:,.0f}" for v in ticks(last, 6) if first <= v < last - room and v == int(v)}
    if beyond:
        labelled[(edges[-1] + edges[-2]) / 2] = f"≥{(last - 1) * unit + 1:,}"
    return _distribution(shares, edges, labelled, x_label, y_label)


def _end(counts: Sequence[int]) -> int:
    """Return the number up to which next to all are."""
    left, total = 0, sum(counts)
    for i in range(len(counts) - 1, -1, -1):
        left += counts[i]
        if left > _TAIL * total:
            return i + 1
    return 0


def _distribution(
    shares: Sequence[Sequence[float]],
    edges: Sequence[float],
    x_ticks: Mapping[float, str],
    x_label: str,
    y_label: str,
) -> str:
    most = max((share for of_file in shares for share in of_file), default=0)
    if not most:
        return ""
    frame = Frame(WIDTH, HEIGHT, edges[-1], most * 1.04, edges[0])
    drawn = (
        [columns(frame, shares[0], edges, "s0 bar")]
        if len(shares) == 1
        else [steps(frame, of_file, edges, f"s{i} step") for i, of_file in enumerate(shares) if any(of_file)]
    )
    y_ticks = {value: _percent(value) for value in ticks(most)}
    return picture(WIDTH, HEIGHT, f"{y_label} by {x_label}", [axes(frame, x_ticks, y_ticks, x_label, y_label), *drawn])


def mask_by_position(files: Sequence[File]) -> str:
    """Figure 6b: the mean mask by place in the read with its 95 % interval, over the places that enough reads have."""
    drawn = [_enough(file["positions"]["reads"]) for file in files]
    n = max(drawn, default=0)
    if not n:
        return ""
    frame = Frame(WIDTH, HEIGHT, max(n - 1, 1), 1.0)
    parts = []
    for i, (file, shown) in enumerate(zip(files, drawn, strict=True)):
        points = _means(file["positions"], shown, -(-n // _MOST_PLACES))
        upper = [(place, min(mean + error, 1.0)) for place, mean, error in points]
        lower = [(place, max(mean - error, 0.0)) for place, mean, error in reversed(points)]
        parts.append(line(frame, [*upper, *lower], f"s{i} band"))
        parts.append(line(frame, [(place, mean) for place, mean, _ in points], f"s{i} line"))
    x_ticks = {0.0: "1"} | {place - 1: f"{place:,.0f}" for place in ticks(n, 6) if place > 1 and place == int(place)}
    label = f"token, counted from the start of the {kind_of(files).row}"
    shown_axes = axes(frame, x_ticks, {i / 4: f"{i / 4:g}" for i in range(5)}, label, "mask value")
    return picture(WIDTH, HEIGHT, f"mean mask by {label}", [shown_axes, *parts])


def _enough(reads: Sequence[int]) -> int:
    """Return up to which place there are enough reads to show a mean."""
    most = max(reads, default=0)
    least = max(_LEAST_SHARE * most, min(_LEAST_READS, most))
    return sum(n >= least for n in reads) if most else 0


def _means(positions: Mapping[str, Any], shown: int, width: int) -> list[tuple[float, float, float]]:
    """Return place, mean and half a 95 % interval of each `width` places together.

    Tokens of a read resemble each other, so the interval is that of as many values as there are reads.
    """
    reads, mean, sd = (positions[name][:shown] for name in ("reads", "mean", "sd"))
    points = []
    for start in range(0, shown, width):
        here = range(start, min(start + width, shown))
        n = sum(reads[i] for i in here)
        together = sum(reads[i] * mean[i] for i in here) / n
        variance = sum(reads[i] * (sd[i] ** 2 + (mean[i] - together) ** 2) for i in here) / n
        points.append(((here[0] + here[-1]) / 2, together, _Z * math.sqrt(variance * len(here) / n)))
    return points


def kept_by_prob(ranks: Sequence[Mapping[str, Any] | None], kind: Kind) -> str:
    """How often the masked read keeps the call, by plain probability, with 95 % intervals.

    Args:
        ranks: the same rank of each file; None where a file has no such rank, or no masked calls.
        kind: of the files.
    """
    frame = Frame(WIDTH, HEIGHT, 1.0, 1.0)
    parts = []
    for i, rank in enumerate(ranks):
        if rank is None or rank["kept"] is None:
            continue
        points = []
        for called, kept, middle in _by_tenths(rank):
            x = middle + (i - (len(ranks) - 1) / 2) * 0.012
            low, high = wilson(kept, called)
            points.append((x, kept / called))
            parts.append(f'<path class="s{i} error" d="M{num(frame.x(x))} {num(frame.y(low))}V{num(frame.y(high))}"/>')
        parts.append(line(frame, points, f"s{i} line thin"))
        parts += [
            f'<circle class="s{i} dot" cx="{num(frame.x(x))}" cy="{num(frame.y(y))}" r="3.5"/>' for x, y in points
        ]
    fifths = [i / 5 for i in range(6)]
    y_ticks = {value: _percent(value) for value in fifths}
    x_ticks = {value: f"{value:g}" for value in fifths}
    drawn = axes(frame, x_ticks, y_ticks, "probability of the plain call", f"{kind.rows} that keep it")
    label = f"share of {kind.rows} that keep the call by plain probability"
    return picture(WIDTH, HEIGHT, label, [drawn, *parts])


def _by_tenths(rank: Mapping[str, Any]) -> list[tuple[int, int, float]]:
    """Return called reads, those that keep the call, and the middle, of each tenth of the probability that occurs."""
    called, kept = rank["called_by_prob"], rank["kept_by_prob"]
    width = max(1, len(called) // 10)
    tenths = [
        (sum(called[i : i + width]), sum(kept[i : i + width]), (i + width / 2) / len(called))
        for i in range(0, len(called), width)
    ]
    return [tenth for tenth in tenths if tenth[0]]


def wilson(kept: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927).

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, z2 = kept / n, _Z**2
    middle, half = share + z2 / (2 * n), _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def plain_against_masked(rank: Mapping[str, Any]) -> str:
    """A 2-d histogram of the probabilities of the plain and of the masked call, of a rank with masked calls.

    Reads that keep their call are shades; those that do not, dots that grow with their number.
    """
    size = 348.0
    frame = Frame(size, size + 12, 1.0, 1.0)
    kept, changed = rank["kept_grid"], rank["changed_grid"]
    most, most_changed = most_in_cell(rank), max(map(max, changed))
    side = 1 / len(kept)
    cell = frame.x(side) - frame.x(0)
    by_shade: dict[int, list[str]] = {}
    dots = []
    for i, (kept_row, changed_row) in enumerate(zip(kept, changed, strict=True)):
        for j, (n, n_changed) in enumerate(zip(kept_row, changed_row, strict=True)):
            x, y = frame.x(i * side), frame.y((j + 1) * side)
            if n:
                square = f"M{num(x)} {num(y)}h{num(cell)}v{num(cell)}h{num(-cell)}z"
                by_shade.setdefault(shade(n, most), []).append(square)
            if n_changed:
                radius = 1.3 + (cell / 2 - 1.6) * math.sqrt(n_changed / most_changed)
                dots.append(dot(x + cell / 2, y + cell / 2, radius))
    fifths = {i / 5: f"{i / 5:g}" for i in range(6)}
    diagonal = f'<path class="diagonal" d="M{num(frame.x(0))} {num(frame.y(0))}L{num(frame.x(1))} {num(frame.y(1))}"/>'
    drawn = [f'<path class="g{level}" d="{"".join(cells)}"/>' for level, cells in sorted(by_shade.items())]
    if dots:
        drawn.append(f'<path class="changed" d="{"".join(dots)}"/>')
    label = f"{rank['name']}: probability of the masked call by that of the plain call"
    frame_axes = axes(frame, fifths, fifths, "probability of the plain call", "probability of the masked call")
    return picture(size, size + 12, label, [frame_axes, *drawn, diagonal], "chart square")


def most_in_cell(rank: Mapping[str, Any]) -> int:
    """Return the reads of the fullest cell among those that keep their call."""
    most: int = max(map(max, rank["kept_grid"]))
    return most


def classes(most: int) -> list[int]:
    """Return from which number of reads on each shade stands, the lightest first.

    >>> classes(45)
    [1, 3, 10, 30]
    """
    found = [n for n in _HALF_DECADES if n <= max(most, 1)]
    return found if len(found) <= SHADES else [n for n in _DECADES if n <= most]


def shade(n: int, most: int) -> int:
    """Return the shade of a number of reads, 1 to SHADES."""
    return shades_of(most)[sum(n >= start for start in classes(most)) - 1]


def shades_of(most: int) -> list[int]:
    """Return the shade of each class, from the lightest to the darkest.

    >>> shades_of(45)
    [1, 3, 5, 7]
    """
    n = len(classes(most))
    return [SHADES] if n == 1 else [1 + round(i * (SHADES - 1) / (n - 1)) for i in range(n)]


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [n / total for n in counts] if total else [0.0] * len(counts)


def _percent(value: float) -> str:
    shown = f"{100 * value:.1f}".rstrip("0").rstrip(".")
    return f"{shown} %"
