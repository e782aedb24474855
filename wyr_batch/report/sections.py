"""The sections in words and numbers: the run, the headline, the status of rows, what a mask means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wyr_batch.draw.kinds import READS, YES
from wyr_batch.report.parts import (
    Bars,
    File,
    bars,
    calls_of,
    decimal,
    escape,
    has_kmers,
    has_many_labels,
    kind_of,
    names_of_ranks,
    note,
    rank_of,
    section,
    share,
    table,
)

_HASH_LETTERS = 12
_SAID_ELSEWHERE = ("dtype", "mask_dtype", "runtime", "explain", "dataset", "sequences")
_STATUSES = {
    "ok": "explained",
    "windowed": "explained; longer than the model takes, so cut into windows and stitched",
    "empty": "no {0.letters}: nothing to explain",
    "too_short": "shorter than --min-length: not explained",
    "failed": "the model failed on it",
}


def what_was_run(files: Sequence[File]) -> str:
    """How the files were made, as far as they say."""
    kind = kind_of(files)
    rows = {
        "Masks": [escape(file["path"]) for file in files],
        "Inputs": ["<br>".join(map(escape, _of(file, "inputs", []))) for file in files],
        "Bundle": [_bundle(file) for file in files],
        "Engine": [_engine(file) for file in files],
        "Explained class": [escape(", ".join(map(str, _of(file, "explain", [])))) for file in files],
        "Options": [_options(file) for file in files],
        "Version": [
            f"wyr-batch {escape(str(version))}" if (version := _of(file, "version", "")) else "" for file in files
        ],
        "Finished": [
            escape(str((file["rates"] or {}).get("finished_utc", ""))).replace("T", " ").replace("+00:00", " UTC")
            for file in files
        ],
        kind.rows.capitalize(): [f"{file['rows']:,}" for file in files],
        "Length": [_lengths(file) for file in files],
        kind.letters.capitalize(): [f"{file['bases']:,}" for file in files],
        "Words": [f"{file['words']['total']:,}" if file["words"] else "" for file in files],
        "Tokens": [f"{file['tokens']:,}" for file in files],
        "Speed": [_speed(file) for file in files],
    }
    shown = {name: cells for name, cells in rows.items() if any(cells)}
    missing = [escape(file["name"]) for file in files if file["run"] is None]
    said = note(f"How {', '.join(missing)} was made is not in its footer.") if missing else ""
    if len(files) == 1:
        pairs = "".join(f"<div><dt>{name}</dt><dd>{cells[0]}</dd></div>" for name, cells in shown.items())
        return section("run", "What was run", f'<dl class="facts">{pairs}</dl>', said)
    heads = ["", *(f'<span class="key s{i}">{escape(file["name"])}</span>' for i, file in enumerate(files))]
    body = ([name, *(cell or "–" for cell in cells)] for name, cells in shown.items())
    return section("run", "What was run", table(heads, body, "facts"), said)


def _of(file: File, name: str, default: Any) -> Any:
    return (file["run"] or {}).get(name, default) or default


def _engine(file: File) -> str:
    runtime, dtype, device = (str(_of(file, name, "")) for name in ("runtime", "dtype", "device"))
    return escape(f"{runtime} {dtype}".strip() + (f" on {device}" if device else ""))


def _bundle(file: File) -> str:
    digest = str(_of(file, "bundle_sha256", ""))[:_HASH_LETTERS]
    name = escape(str(_of(file, "bundle", "")))
    return f"{name} <code>{escape(digest)}</code>" if digest else name


def _options(file: File) -> str:
    options = {name: value for name, value in _of(file, "options", {}).items() if value and name not in _SAID_ELSEWHERE}
    options |= {"mask_dtype": _of(file, "mask_dtype", "")} if _of(file, "mask_dtype", "float32") != "float32" else {}
    usual = {"top_k": 1}
    said = [
        name.replace("_", " ") + ("" if value is True else f" {value}")
        for name, value in options.items()
        if usual.get(name) != value
    ]
    return escape(", ".join(said))


def _lengths(file: File) -> str:
    least, most, kind = file["shortest_bp"], file["longest_bp"], kind_of([file])
    if least is None:
        return ""
    if least == most:
        return kind.length(least)
    return f"{least:,} to {kind.length(most)}, mean {file['bases'] / file['rows']:,.0f}"


def _speed(file: File) -> str:
    rates = file["rates"] or {}
    if not isinstance(rates.get("reads_per_s"), int | float):
        return ""
    kind = kind_of([file])
    said = f"{rates['reads_per_s']:,.0f} {kind.rows}/s"
    if isinstance(rates.get("tokens_per_s"), int | float):
        said += f", {rates['tokens_per_s']:,.0f} tokens/s"
    if isinstance(rates.get("seconds"), int | float) and isinstance(rates.get("reads"), int):
        said += f" ({kind.count(rates['reads'])} in {rates['seconds']:,.1f} s)"
    return said


def in_numbers(files: Sequence[File]) -> str:
    """The headline numbers."""
    if len(files) > 1:
        return section("numbers", "In numbers", _compared(files))
    (file,), kind = files, kind_of(files)
    many = has_many_labels(files)
    kept = _labels_kept(file) if many else _calls_kept(file)
    segments, mask = file["segments"], file["mask"]
    tiles = [
        _tile(
            f"{kind.rows.capitalize()} explained",
            share(file["explained"], file["rows"]),
            f"{file['explained']:,} of {kind.count(file['rows'])}",
        ),
        _tile("Mean mask", decimal(mask["mean"]), f"{share(mask['kept_share'])} of the tokens are kept"),
        _tile(
            f"Segments a {kind.row}",
            decimal(segments["per_read_mean"], 1),
            _segment_size(file),
        ),
        _tile(
            f"{kind.letters.capitalize()} in segments", share(segments["bases_share"]), f"of the explained {kind.rows}"
        ),
    ]
    what = "a label" if many else "the call"
    keeps = f'<div class="tile wide"><h3>The masked {kind.row} keeps {what}</h3>{bars("", kept)}</div>' if kept else ""
    return section("numbers", "In numbers", f'<div class="tiles">{"".join(tiles)}{keeps}</div>')


def _calls_kept(file: File) -> list[Bars]:
    """Return a bar for each rank: the share of calls that the masked read keeps."""
    return [
        (escape(rank["name"]), [rank["kept"] / rank["called"]], [share(rank["kept"], rank["called"])], "")
        for rank in file["ranks"]
        if rank["kept"] is not None and rank["called"]
    ]


def _labels_kept(file: File) -> list[Bars]:
    """Return the bar of all labels together that were yes: the share that is yes under the mask as well."""
    given = [calls_of(rank, YES) for rank in file["ranks"] if rank["kept"] is not None]
    n_given, n_kept = (sum(call[name] for call in given) for name in ("reads", "kept"))
    return [("all labels", [n_kept / n_given], [share(n_kept, n_given)], "")] if n_given else []


def _segment_size(file: File) -> str:
    """Return how long a segment is on average."""
    said = f"{decimal(file['segments']['length_mean_bp'], 1)} {kind_of([file]).unit}"
    if file["words"]:
        said += f", {decimal(file['words']['per_segment_mean'], 1)} words"
    return said + " each"


def _tile(title: str, value: str, said: str) -> str:
    return f'<div class="tile"><h3>{title}</h3><p class="big">{value}</p><p>{said}</p></div>'


def _compared(files: Sequence[File]) -> str:
    kind = kind_of(files)
    ranks = [] if has_many_labels(files) else names_of_ranks(files)
    heads = ["", kind.rows, "explained", "mean mask", *(f"{escape(rank)} kept" for rank in ranks)]
    heads += [f"segments a {kind.row}", f"{kind.letters} in segments"]
    rows = []
    for i, file in enumerate(files):
        found = [rank_of(file, rank) for rank in ranks]
        rows.append(
            [
                f'<span class="key s{i}">{escape(file["name"])}</span>',
                f"{file['rows']:,}",
                share(file["explained"], file["rows"]),
                decimal(file["mask"]["mean"]),
                *(share(rank["kept"], rank["called"]) if rank else "–" for rank in found),
                decimal(file["segments"]["per_read_mean"], 1),
                share(file["segments"]["bases_share"]),
            ]
        )
    return table(heads, rows, "numbers")


def statuses(files: Sequence[File]) -> str:
    """What became of the rows, and why some failed."""
    kind = kind_of(files)
    found = list(
        dict.fromkeys(
            [
                *(s for s in _STATUSES if any(s in f["statuses"] for f in files)),
                *(s for f in files for s in f["statuses"]),
            ]
        )
    )
    heads = [
        "status",
        *(
            f'<span class="key s{i}">{escape(f["name"])}</span>' if len(files) > 1 else kind.rows
            for i, f in enumerate(files)
        ),
        "meaning",
    ]
    rows = [
        [
            escape(status.replace("_", " ")),
            *(_of_rows(file, status) for file in files),
            _STATUSES.get(status, "").format(kind),
        ]
        for status in found
    ]
    content = table(heads, rows, "statuses") if rows else note("No rows.")
    return section("rows", "Status of the rows", content, *(_failures(file, len(files) > 1) for file in files))


def _of_rows(file: File, status: str) -> str:
    n = file["statuses"].get(status, 0)
    return f"{n:,} <small>{share(n, file['rows'])}</small>" if n else "0"


def _failures(file: File, named: bool) -> str:
    n = file["statuses"].get("failed", 0)
    if not n:
        return ""
    of = f" of {escape(file['name'])}" if named else ""
    kind = kind_of([file])
    if file["failures"] is None:
        why = note(f"Why {kind.count(n)}{of} failed is not in the footer.")
    else:
        rows = ([escape(reason), f"{times:,}"] for reason, times in file["failures"].items())
        why = f"<h3>Why {kind.count(n)}{of} failed</h3>{table(['reason', kind.rows], rows, 'failures')}"
    ids = ", ".join(f"<code>{escape(read_id)}</code>" for read_id in file["failed_ids"])
    more = "" if n <= len(file["failed_ids"]) else f"The first {len(file['failed_ids'])}: "
    return why + note(f"{more or 'Failed: '}{ids}")


def what_a_mask_says(files: Sequence[File]) -> str:
    """What can be concluded, and what cannot."""
    kind = kind_of(files)
    last = _NOT_FOR_THE_OTHER_STRAND if kind is READS else ""
    what = "neither biology nor a quality of the read" if kind is READS else f"no property of the {kind.row}"
    tokens = "Tokens of six bases" if has_kmers(files) else "Tokens"
    said = _MEANING.format(kind, what=what, tokens=tokens, last=last, starter=_STARTER if kind is READS else "")
    return section("meaning", "What a mask says and what it does not", said)


_MEANING = """<div class="grid two prose"><div><h3>What it says</h3><ul>
<li><b>Enough for the call.</b> Where the masked {0.row} keeps its call, the kept tokens are enough for this classifier
to make it. How often that holds for these {0.rows} is shown above, with the amount of mask that it took.</li>
<li><b>About the classifier.</b> A mask explains what the model did. It is {what}.</li></ul></div><div>
<h3>What it does not say</h3><ul>
<li><b>Not where the evidence lies.</b> A mask that opens every second token can keep a call and point nowhere. Nothing
on this page can tell. <code>wyr-batch evaluate</code> measures it{starter}.</li>
<li><b>Not that the call is right.</b> The explanation of a wrong call explains the wrong call. Probabilities are the
model’s own; what it was not trained with gets the name of something that it was.</li>
<li><b>Not {0.letter} by {0.letter}.</b> {tokens} are read in their context. Look at segments, and conclude nothing from
a single token.</li>
<li><b>Not the same probability.</b> The masked probability is that of the masked {0.row}’s own best class. Where the
call changes, it belongs to another class.</li>
{last}</ul></div></div>"""
_STARTER = (
    " with reads joined of two classes; for the built-in starter it finds masks that hardly depend on the class that "
    "is asked for"
)
_NOT_FOR_THE_OTHER_STRAND = (
    "<li><b>Not for the other strand.</b> The reverse complement of a read may be called, and masked, "
    "differently.</li>\n"
)
