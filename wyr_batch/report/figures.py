"""The sections with figures: calls, what the masked reads are called, masks and segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wyr_batch.draw.kinds import YES, Kind
from wyr_batch.report.charts import (
    classes,
    kept_by_prob,
    mask_by_position,
    mask_histogram,
    most_in_cell,
    plain_against_masked,
    segment_lengths,
    segment_words,
    segments_per_read,
    shades_of,
)
from wyr_batch.report.parts import (
    Bars,
    File,
    bars,
    calls_of,
    count,
    escape,
    figure,
    has_kmers,
    has_many_labels,
    kind_of,
    legend,
    names_of_ranks,
    note,
    rank_of,
    section,
    share,
)
from wyr_batch.report.sunburst import COLOURS, sunburst

SHOWN_CALLS = 20
SHOWN_LABELS = 60  # of a multi-label classifier
COMPARED_LABELS = 6  # of them, with figures of their own


def calls(files: Sequence[File]) -> str:
    """Bars of each rank's calls, and the rings of their lineages."""
    if has_many_labels(files):
        return section("calls", "Labels", note(_LABELS_SAID.format(kind_of(files))), legend(files), _labels(files))
    several, kind = len(files) > 1, kind_of(files)
    columns = "".join(_rank_bars(files, rank) for rank in names_of_ranks(files))
    if len(names_of_ranks(files)) == 1:
        said = "The model names classes that it was trained with, and no others."
        return section("calls", "Calls", note(said), legend(files), f'<div class="several">{columns}</div>')
    colours = _colours(files)
    rings = []
    for i, file in enumerate(files):
        ranks = [rank["name"] for rank in file["ranks"]]
        title = file["name"] if several else "Calls rank by rank"
        caption = (
            f"From the middle outwards: {escape(', '.join(ranks))}. Angles are shares of the explained {kind.rows}."
        )
        drawn = sunburst(file["lineages"], ranks, colours, kind, f"f{i}-", file["name"])
        rings.append(figure(title, drawn, caption, "ring"))
    said = (
        "Ranks are called one by one, each by a head of its own, so a call can stand below one that it does not belong "
        "to. The model names classes that it was trained with, and no others."
    )
    if several:
        content = f'<div class="rings">{"".join(rings)}</div>{legend(files)}<div class="several">{columns}</div>'
    else:
        content = f'<div class="calls">{rings[0]}<div class="columns">{columns}</div></div>'
    return section("calls", "Calls", note(said), content)


_LABELS_SAID = (
    "Each label is a yes or no of its own. The bars show how many of the explained {0.rows} have it, and how many "
    "of those have it under the mask as well."
)


def labels_by_share(files: Sequence[File]) -> list[str]:
    """Return the labels of a multi-label classifier, the most frequent first."""

    def most(name: str) -> float:
        ranks = [(file, rank_of(file, name)) for file in files]
        shares = [calls_of(rank, YES)["reads"] / (file["explained"] or 1) for file, rank in ranks if rank is not None]
        return float(max(shares))

    return sorted(names_of_ranks(files), key=lambda name: -most(name))


def _labels(files: Sequence[File]) -> str:
    """Return two columns of bars, a row a label: the share that has it, and of those the share that keeps it."""
    order = labels_by_share(files)
    given: list[Bars] = []
    kept_rows: list[Bars] = []
    for name in order[:SHOWN_LABELS]:
        shares: list[float | None] = []
        keeps: list[float | None] = []
        for file in files:
            rank = rank_of(file, name)
            call = None if rank is None else calls_of(rank, YES)
            shares.append(None if call is None else call["reads"] / (file["explained"] or 1))
            keeps.append(call["kept"] / call["reads"] if call and call["reads"] and call["kept"] is not None else None)
        given.append(_bar(escape(name), shares, 1.0, ""))
        kept_rows.append(_bar(escape(name), keeps, 1.0, ""))
    more = (
        f"the {SHOWN_LABELS} most frequent of {len(order):,}"
        if len(order) > SHOWN_LABELS
        else count(len(order), "label")
    )
    tables = bars(f"{kind_of(files).rows} with the label".capitalize(), given, more)
    tables += bars("Kept under the mask", kept_rows)
    return f'<div class="several labels">{tables}</div>'


def _colours(files: Sequence[File]) -> dict[str | None, int]:
    """Return the colour of each call of the first rank, the same in all files, by how frequent it is."""
    reads: dict[str | None, int] = {}
    for file in files:
        for child in file["lineages"]["children"]:
            reads[child["label"]] = reads.get(child["label"], 0) + child["reads"]
    order = sorted((label for label in reads if label is not None), key=lambda label: -reads[label])
    return {label: min(i, COLOURS) for i, label in enumerate(order)}


def _rank_bars(files: Sequence[File], name: str) -> str:
    """Return bars of the calls of one rank, the most frequent ones and the rest, as shares of each file's calls."""
    ranks = [rank_of(file, name) for file in files]
    shares: dict[str, list[float | None]] = {}
    for i, rank in enumerate(ranks):
        if rank is not None:
            for call in rank["calls"]:
                shares.setdefault(call["label"], [None] * len(files))[i] = call["reads"] / rank["called"]
    order = sorted(shares, key=lambda label: -max(found or 0 for found in shares[label]))
    shown = order if len(order) <= SHOWN_CALLS + 1 else order[:SHOWN_CALLS]
    rest = [None if rank is None else _rest(rank, shown) for rank in ranks]
    most = max((found or 0 for label in shown for found in shares[label]), default=0) or 1.0
    rows = [_bar(escape(label), shares[label], most, "") for label in shown]
    if any(rest):
        n_left = max(_labels_left(rank, shown) for rank in ranks if rank is not None)
        rows.append(_bar(f"{n_left:,} more", rest, most, "rest"))
    uncalled = [
        0 if rank is None else file["explained"] - rank["called"] for file, rank in zip(files, ranks, strict=True)
    ]
    about = count(max(rank["labels"] for rank in ranks if rank is not None), "label")
    if any(uncalled):
        about += f", {', '.join(f'{n:,}' for n in uncalled)} {kind_of(files).rows} without a call"
    return bars(name, rows, about)


def _bar(label: str, shares: Sequence[float | None], most: float, kind: str) -> Bars:
    """Return a row of bars of which `most` is the whole width; a longer one fades at its end."""
    lengths = [min(1.0, (found or 0) / most) for found in shares]
    cut = " cut" if any((found or 0) > most for found in shares) else ""
    return label, lengths, [share(found) for found in shares], kind + cut


def _labels_left(rank: Mapping[str, Any], shown: Sequence[str]) -> int:
    return int(rank["labels"]) - sum(call["label"] in shown for call in rank["calls"])


def _rest(rank: Mapping[str, Any], shown: Sequence[str]) -> float | None:
    """Return the share of the calls that are not among those shown."""
    reads = sum(call["reads"] for call in rank["calls"] if call["label"] in shown)
    return 1 - reads / rank["called"] if rank["called"] else None


def kept(files: Sequence[File]) -> str:
    """How often the masked read keeps the call, and how its probability changes."""
    kind = kind_of(files)
    blocks: list[list[str]] = []
    many = has_many_labels(files)
    for name in labels_by_share(files)[:COMPARED_LABELS] if many else names_of_ranks(files):
        ranks = [rank_of(file, name) for file in files]
        if all(rank is None or rank["kept"] is None for rank in ranks):
            continue
        figures = [figure(f"{name}: calls kept", kept_by_prob(ranks, kind))]
        for file, rank in zip(files, ranks, strict=True):
            if rank is not None and rank["kept"] is not None:
                title = f"{name}: {file['name']}" if len(files) > 1 else f"{name}: plain and masked"
                figures.append(figure(title, plain_against_masked(rank), _grid_caption(rank, kind)))
        blocks.append(figures)
    if not blocks:
        said = f"There are no calls of masked {kind.rows} to compare with."
        return section("kept", _KEPT_TITLE.format(kind), note(said))
    stacks = [f'<div class="stack">{"".join(figures)}</div>' for figures in blocks] if len(blocks) > 1 else blocks[0]
    content = f'<div class="grid three">{"".join(stacks)}</div>'
    paragraphs = [*_KEPT_SAID, *([_FEW_LABELS] if many else [])]
    if any(rank["no_masked_call"] for file in files for rank in file["ranks"]):
        paragraphs.append(_UNCALLED)
    notes = [note(paragraph.format(kind)) for paragraph in paragraphs]
    return section("kept", _KEPT_TITLE.format(kind), *notes, legend(files), content)


_KEPT_TITLE = "Does the masked {0.row} keep the call?"
_FEW_LABELS = (
    f"Calls are the yes and no of a label here. The {COMPARED_LABELS} most frequent labels have figures; the bars "
    "above are of all labels, and of those that were yes only."
)
_UNCALLED = (
    "Some masked {0.rows} have no call, as the run left out those less probable than its "
    "<code>--confidence</code>. They count as changed."
)
_KEPT_SAID = (
    "Every {0.row} is classified twice: as it is, and with each token scaled by its mask. Where the call stays, what "
    "the mask keeps is enough for it. Read this beside the mean mask: a mask of ones keeps every call.",
    "<b>Calls kept</b>: the share of {0.rows} that keep the call, by the probability of the plain call, with 95 % "
    "intervals. <b>Plain and masked</b>: how probable both calls are. On the dashed line they are equally so; below "
    "it, the mask takes some of the evidence away.",
)


def _grid_caption(rank: Mapping[str, Any], kind: Kind) -> str:
    most = most_in_cell(rank)
    keys = "".join(
        f'<span><i class="shade g{level}"></i>{n:,}</span>'
        for n, level in zip(classes(most), shades_of(most), strict=True)
    )
    changed = f"call changes, {kind.count(rank['called'] - rank['kept'])}"
    dots = f'<span><i class="dot"></i>{changed}</span>'
    said = f'<span class="keys"><span>{kind.rows} in a cell, from</span>{keys}{dots}</span>'
    if rank["no_masked_call"]:
        said += f"{rank['no_masked_call']:,} of them have no call under the mask."
    return said


def masks(files: Sequence[File]) -> str:
    """The paper's figures 6 and 7."""
    kind, kmers = kind_of(files), has_kmers(files)
    of_words = any(file["words"] is not None for file in files)
    position = _POSITION.format(kind) + (_LAST_BASES if kmers else "") + _sd_caption(files)
    figures = [
        figure("Mask values", mask_histogram(files), _values_caption(files)),
        figure("Mask by position", mask_by_position(files), position),
        figure(
            f"Segments of a {kind.row}",
            segments_per_read(files),
            f"A segment is a run of {'words' if of_words else 'tokens'} whose mask is 0.5 or more.",
        ),
        figure("Length of segments", segment_lengths(files), "Most tokens have 6 bp." if kmers else ""),
    ]
    if of_words:
        figures.append(figure("Words of segments", segment_words(files), _WORDS))
    return section("masks", "Masks and segments", legend(files), f'<div class="grid two">{"".join(figures)}</div>')


_POSITION = "Mean over the {0.rows} that have such a token, with its 95 % interval."
_LAST_BASES = " Bases at the end that fill no token of six are tokens of their own."
_WORDS = (
    "Words are counted between gaps, as white space leaves them; in a script without spaces, that is a whole stretch "
    "of letters."
)


def _values_caption(files: Sequence[File]) -> str:
    if len(files) > 1 or not files[0]["mask"]["tokens"]:
        return ""
    mask = files[0]["mask"]
    low, high, total = mask["counts"][0], mask["counts"][-1], mask["tokens"]
    width = 1 / mask["bins"]
    below, above = (
        f"{share(n, total)} of them {where}"
        for n, where in ((low, f"below {width:.2f}"), (high, f"above {1 - width:.2f}"))
    )
    return f"{count(total, 'token')}, {below} and {above}."


def _sd_caption(files: Sequence[File]) -> str:
    sds = [sd for file in files for sd in file["positions"]["sd"]]
    if not sds:
        return ""
    least, most = min(sds), max(sds)
    between = f"{least:.2f}" if f"{least:.2f}" == f"{most:.2f}" else f"{least:.2f} to {most:.2f}"
    return f" The values of single tokens spread wider: their standard deviation is {between}."
