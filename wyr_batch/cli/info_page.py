"""What `wyr-batch info` shows a person: the content of its JSON as a page."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_LEAST_COLUMNS, _MOST_COLUMNS = 60, 110


def page(content: dict[str, Any]) -> str:
    """Return a page for a terminal, with colours only if standard output is one.

    Args:
        content: as `info.path_info` returns it, of a bundle or of masks.
    """
    from rich.console import Console

    columns = min(max(shutil.get_terminal_size((100, 24)).columns, _LEAST_COLUMNS), _MOST_COLUMNS)
    console = Console(file=io.StringIO(), width=columns, force_terminal=sys.stdout.isatty(), highlight=False)
    for part in _bundle_parts(content) if "files" in content else _masks_parts(content):
        if part is not None:
            console.print(part, soft_wrap=isinstance(part, str))
            console.print()
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip()


def _bundle_parts(content: dict[str, Any]) -> Iterable[Any]:
    from rich.markup import escape

    ranks = ", ".join(f"{n} {escape(name)}" for name, n in content["ranks"].items())
    of_bp, of_tokens = (f"{content[f'window_{unit}']:,}" for unit in ("bp", "tokens"))
    window = f"windows of {of_bp} bp" if content["window_bp"] else f"windows of {of_tokens} tokens"
    yield (
        f"[bold]{escape(content['name'])}[/bold]  {escape(content['path'])}\n"
        f"{ranks} classes; {content['input']}, {window}, up to {content['max_tokens']:,} tokens; "
        f"{escape(content['family'])}, {content['pooling']} pooling, mask on {content['mask_site']}"
    )
    files = [(f["path"], f["kind"], f["dtype"], f.get("parity", "")) for f in content["files"]]
    yield _table(("file", "kind", "dtype", "proof"), files)
    proofs = [
        (
            name,
            r["verdict"],
            *(f"{min(r[key]):.2%}" if r[key] else "" for key in ("label_agreement", "masked_label_agreement")),
        )
        for name, r in content["parity"].items()
    ]
    yield _table(("proof of", "verdict", "same calls", "same calls, masked"), proofs)
    speeds = [(name, f"{speed:,.1f}") for name, speed in content["rows_per_s_at_export"].items()]
    yield _table(("runtime", "rows/s at export"), speeds)
    if content["licence"]:
        yield escape(content["licence"])
    yield "Metrics, training and hashes: --json"


def _masks_parts(content: dict[str, Any]) -> Iterable[Any]:
    from rich.markup import escape

    n_parts = content.get("parts")
    parts = "" if n_parts is None else f" in {n_parts:,} part{'s' if n_parts != 1 else ''}"
    unfinished = "" if content.get("finished", True) else ", [bold]not finished[/bold]: --resume continues"
    lines = [f"[bold]{content['rows']:,} rows[/bold]{parts}{unfinished}"]
    shown = ("version", "bundle", "runtime", "device", "dtype", "mask_dtype", "explain", "inputs")
    for key in (key for key in shown if key in content):
        value = content[key]
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        lines.append(f"{key:<11} {escape(text)}")
    yield "\n".join(lines)
    yield _table(("column", "type"), list(content["columns"].items()))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a table, None where it has no rows."""
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return None
    table = Table(*heads, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    return table
