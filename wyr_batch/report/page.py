"""The report's JSON -> one HTML page that needs nothing else: no host, no other file, no JavaScript."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wyr_batch.draw.kinds import YES
from wyr_batch.draw.style import STYLE
from wyr_batch.report.figures import calls, kept, masks
from wyr_batch.report.parts import File, calls_of, decimal, escape, has_many_labels, kind_of, legend, share
from wyr_batch.report.reads import reads
from wyr_batch.report.sections import in_numbers, statuses, what_a_mask_says, what_was_run

_NAVIGATION = {
    "run": "Run",
    "numbers": "Numbers",
    "calls": "Calls",
    "kept": "Kept calls",
    "masks": "Masks",
    "reads": "Reads",
    "rows": "Rows",
    "meaning": "What a mask says",
}


def page(data: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        data: what `data.gather` returned, or the same from its JSON.
    """
    files: Sequence[File] = data["files"]
    title = escape(data["title"] or default_title(files))
    script = _beside("page.js")
    # Whatever a file brings into the page, it can neither load anything nor run.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'"
    named = _NAVIGATION | {"reads": kind_of(files).rows.capitalize()}
    named |= {"calls": "Labels"} if has_many_labels(files) else {}
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name in named.items())
    sections = [
        what_was_run(files),
        in_numbers(files),
        calls(files),
        kept(files),
        masks(files),
        reads(files),
        statuses(files),
        what_a_mask_says(files),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}{_beside('page.css')}</style>\n</head>\n<body>\n"
        f'<header><p class="kicker">wyr-batch report</p><h1>{title}</h1>{lead(files)}{legend(files)}<nav>{links}</nav>'
        f"</header>\n<main>\n{''.join(sections)}</main>\n"
        f"<footer>wyr-batch {escape(data['wyr_batch'])}</footer>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def default_title(files: Sequence[File]) -> str:
    """Return what the report is of: the inputs, as far as they are known."""
    if len(files) > 1:
        return f"Masks of {len(files)} files"
    inputs = [Path(str(path)).name for path in (files[0]["run"] or {}).get("inputs", [])]
    if not inputs or len(inputs) > 2:
        return f"Masks in {Path(files[0]['path']).name}"
    return f"Masks of {' and '.join(inputs)}"


def lead(files: Sequence[File]) -> str:
    """Return the result in a few sentences."""
    kind = kind_of(files)
    if len(files) > 1:
        n_rows = kind.count(sum(file["rows"] for file in files))
        return f'<p class="lead">{len(files)} files, {n_rows}, side by side.</p>'
    (file,) = files
    if not file["explained"]:
        return f'<p class="lead">{kind.count(file["rows"])}, none of them explained.</p>'
    all_of_them = "all" if file["explained"] == file["rows"] else f"{file['explained']:,}"
    said = [
        f"Of {kind.count(file['rows'])}, {all_of_them} were explained.",
        f"The masks keep {share(file['mask']['kept_share'], digits=0)} of the tokens (mean mask "
        f"{decimal(file['mask']['mean'])}).",
    ]
    kept = [
        f"the {escape(rank['name'])} in {share(rank['kept'], rank['called'])}"
        for rank in file["ranks"]
        if rank["kept"] is not None and rank["called"]
    ]
    if has_many_labels(files):
        given = [calls_of(rank, YES) for rank in file["ranks"] if rank["kept"] is not None]
        n_given, n_kept = (sum(call[name] for call in given) for name in ("reads", "kept"))
        if n_given:
            said.append(f"Classified again under the mask, a {kind.row} keeps {share(n_kept, n_given)} of its labels.")
    elif kept:
        listed = kept[0] if len(kept) == 1 else f"{', '.join(kept[:-1])} and {kept[-1]}"
        # A rank that is called "label" is the only one, and its name says nothing.
        in_how_many = listed.removeprefix("the label ") if listed.startswith("the label in ") else f"of {listed}"
        said.append(f"Classified again under the mask, a {kind.row} keeps its call {in_how_many} of the cases.")
    return f'<p class="lead">{" ".join(said)}</p>'


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
