"""`wyr-batch info`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.fields import Fields, parse_json
from wyr_batch.checks.files import exists, is_folder, kind_of, look_at, reason_of, shown_path
from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_result
from wyr_batch.errors import InputError

_EXPECTED = "a bundle (bundle.json), a folder of parts (_run.json, part-000000.parquet) or a Parquet file"
_SHOWN_CHARACTERS = 100


@click.command("info")
@click.argument("path", type=NamedPath(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(path: Path | None, as_json: bool, debug: bool) -> None:
    """Show what a bundle holds, or how masks were made.

    PATH is a bundle, a Parquet file that `run` wrote, or a folder of such files, finished or not. Without PATH, it is
    the built-in starter.

    \b
    wyr-batch info my_bundle
    wyr-batch info masks.parquet --json
    """
    content = path_info(path)
    if not as_json:
        from wyr_batch.cli.info_page import page

        print_result(page(content))
        return
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2)  # letters that the terminal has not got, as escapes
    print_result(text)


def path_info(path: Path | None) -> dict[str, Any]:
    """Return what is known of a bundle, a folder of parts or a Parquet file. Raises: InputError, ModelError."""
    if path is None:
        return bundle_info(None)
    if not is_folder(path):
        return parquet_info(path)
    return bundle_info(path) if exists(path / "bundle.json") else parts_info(path)


def bundle_info(folder: Path | None) -> dict[str, Any]:
    """Return a bundle's description, each file with the verdict of its proof, after checking every hash."""
    from wyr_batch.bundle import load_bundle

    bundle = load_bundle(folder)
    for entry in bundle.files:
        bundle.verified_entry(entry)
    return {
        "name": bundle.name,
        "path": shown_path(bundle.folder),
        "ranks": {rank.name: len(rank.labels) for rank in bundle.ranks},
        "max_tokens": bundle.max_tokens,
        "window_bp": bundle.window_bp,
        "window_tokens": bundle.window_tokens,
        "family": bundle.family,
        "input": bundle.input,
        "mask_site": bundle.mask_site,
        "multi_label": bundle.multi_label,
        "pooling": bundle.pooling,
        "files": [
            {"path": f.path, "kind": f.kind, "dtype": f.dtype, "sha256": f.sha256}
            | ({"parity": bundle.proofs.get(f.path, {}).get("verdict", "unproven")} if f.kind == "onnx" else {})
            for f in bundle.files
        ],
        "parity": {
            name: {key: record[key] for key in ("verdict", "label_agreement", "masked_label_agreement")}
            | {"mask_max": record["max_abs_diff"]["mask"], "mask_mean": record["mask_mean_abs_diff"]}
            for name, record in bundle.all_proofs.items()
        },
        "rows_per_s_at_export": bundle.rows_per_s,
        "metrics": bundle.metrics,
        "training": bundle.training,
        "licence": bundle.licence,
    }


def parquet_info(path: Path) -> dict[str, Any]:
    """Return rows, columns and the footer of a Parquet file that `run` wrote. Raises: InputError."""
    rows, columns, footer = _read_footer(path)
    return {"rows": rows, "columns": columns, **_made(footer, "wyr", path).content}


def parts_info(folder: Path) -> dict[str, Any]:
    """Return rows, columns and the footer of a run's folder of parts, and whether the run is finished.

    Raises: InputError if there is no part and no _run.json; also naming the one of them that is not ours.
    """
    from wyr_batch.rows.folder import parts_in
    from wyr_batch.rows.manifest import MANIFEST_NAME

    parts, unfinished = parts_in(folder), exists(folder / MANIFEST_NAME)
    if not parts and not unfinished:
        raise InputError(shown_path(folder), "a folder of other things", _EXPECTED, "Check the path.")
    rows, finished = 0, False
    columns: dict[str, str] = {}
    made: dict[str, Any] = {}
    for part in parts:
        n_rows, columns, footer = _read_footer(part)
        made = _made(footer, "wyr", part).content
        _made(footer, "wyr_part", part)
        finished = b"wyr_run" in footer
        rows += n_rows
    if unfinished:
        run = Fields.read(folder / MANIFEST_NAME, InputError, "It is damaged, or not of wyr-batch.")
        made = made or run.mapping("footer", {})
    return {"rows": rows, "parts": len(parts), "finished": finished, "columns": columns, **made}


def _read_footer(path: Path) -> tuple[int, dict[str, str], dict[bytes, bytes]]:
    """Return rows, columns and metadata of a Parquet file. Raises: InputError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    status = look_at(path)
    kind = "nothing there" if status is None else kind_of(status)
    if kind != "a file":
        raise InputError(shown_path(path), kind, _EXPECTED, "Check the path.")
    try:
        # Not by name: Arrow takes no name that is not UTF-8.
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            columns = {field.name: str(field.type) for field in schema}
            metadata: dict[bytes, bytes] = file.metadata.metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        got = reason_of(error)[:_SHOWN_CHARACTERS]
        raise InputError(shown_path(path), f"'{got}'", _EXPECTED, "Check the path.") from None
    return rows, columns, metadata


def _made(footer: dict[bytes, bytes], key: str, path: Path) -> Fields:
    """Return one JSON object of a footer; in a file of others it may be anything. Raises: InputError."""
    where, advice = f"{shown_path(path)}, footer {key}", "Name a file that wyr-batch run wrote."
    if key.encode() not in footer:
        raise InputError(where, "nothing", "JSON", advice)
    try:
        content = parse_json(footer[key.encode()])
    except ValueError as error:
        raise InputError(where, error, "JSON", advice) from None
    return Fields(content, where, InputError, advice)
