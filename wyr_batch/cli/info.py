"""`wyr-batch info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from wyr_batch.errors import InputError


@click.command("info")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def command(path: Path | None, debug: bool) -> None:
    """Show what a bundle holds, or how a Parquet file of masks was made, as JSON.

    Without PATH, the built-in starter.

    \b
    wyr-batch info my_bundle
    wyr-batch info masks.parquet
    """
    content = bundle_info(path) if path is None or path.is_dir() else parquet_info(path)
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def bundle_info(folder: Path | None) -> dict[str, Any]:
    """Return a bundle's description, each file with its parity verdict, after checking every hash."""
    from wyr_batch.bundle import load_bundle

    bundle = load_bundle(folder)
    for entry in bundle.files:
        bundle.verified_entry(entry)
    return {
        "name": bundle.name,
        "path": str(bundle.folder),
        "ranks": {rank.name: len(rank.labels) for rank in bundle.ranks},
        "max_tokens": bundle.max_tokens,
        "window_bp": bundle.window_bp,
        "pooling": bundle.pooling,
        "files": [
            {"path": f.path, "kind": f.kind, "dtype": f.dtype, "sha256": f.sha256}
            | ({"parity": bundle.parity.get(f.path, {}).get("verdict", "unproven")} if f.kind == "onnx" else {})
            for f in bundle.files
        ],
        "parity": {
            name: {key: record[key] for key in ("verdict", "label_agreement", "masked_label_agreement")}
            | {"mask_max": record["max_abs_diff"]["mask"], "mask_mean": record["mask_mean_abs_diff"]}
            for name, record in (*bundle.parity.items(), *bundle.runtime_parity.items())
        },
        "rows_per_s_at_export": bundle.rows_per_s,
        "metrics": bundle.metrics,
        "training": bundle.training,
        "licence": bundle.licence,
    }


def parquet_info(path: Path) -> dict[str, Any]:
    """Return rows, columns and the footer of a Parquet file that `run` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            footer = (file.schema_arrow.metadata or {}).get(b"wyr")
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: got '{str(error)[:100]}', expected a bundle directory or a Parquet file.") from None
    if footer is None:
        raise InputError(f"{path}: got a Parquet file without wyr metadata, expected one that wyr-batch run wrote.")
    return {"rows": rows, "columns": {field.name: str(field.type) for field in schema}, **json.loads(footer)}
