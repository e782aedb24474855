"""The report's JSON -> a MultiQC custom-content file: a section with a table, one row a sample.

MultiQC takes it by its name, which ends in `_mqc.json`, and puts files of several runs into one section. It shows texts
as HTML, so they are escaped.
Source: MultiQC's documentation, "Custom content".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from wyr_batch.report.parts import File, escape, kind_of, names_of_ranks, rank_of

NAME_END = "_mqc.json"


def multiqc_json(data: Mapping[str, Any]) -> str:
    """Return the text of the file."""
    files = data["files"]
    kind = kind_of(files)
    rows = kind.rows.capitalize()
    headers = {
        "reads": {
            "title": rows,
            "description": "Rows of the masks file",
            "format": "{:,.0f}",
            "scale": "Blues",
        },
        "explained": _percent("Explained", f"{rows} with a mask"),
        "mask_mean": {
            "title": "Mean mask",
            "description": "Mean over all tokens; 1 keeps a token",
            "min": 0,
            "max": 1,
            "format": "{:,.2f}",
            "scale": "Purples",
        },
        "segments": {
            "title": "Segments",
            "description": f"Segments a {kind.row}, mean",
            "format": "{:,.1f}",
            "scale": "Greys",
        },
    }
    for rank in names_of_ranks(files):
        if any((found := rank_of(file, rank)) and found["kept"] is not None for file in files):
            name = escape(rank)
            headers[f"kept_{rank}"] = _percent(f"{name} kept", f"{rows} whose masked {kind.row} keeps the {name} call")
    content = {
        "id": "wyr_batch",
        "section_name": "wyr-batch",
        "description": f"Masks: which part of each {kind.row} made the call, and how often the mask keeps it.",
        "plot_type": "table",
        "pconfig": {"id": "wyr_batch_table", "title": "wyr-batch: masks", "namespace": "wyr-batch"},
        "headers": headers,
        "data": {escape(str(PurePath(file["name"]).with_suffix(""))): _row(file) for file in files},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _percent(title: str, description: str) -> dict[str, Any]:
    return {"title": title, "description": description, "min": 0, "max": 100, "suffix": "%", "scale": "YlGn"}


def _row(file: File) -> dict[str, float]:
    """Return the values of a sample; those that it does not have are left out."""
    values = {
        "reads": file["rows"],
        "explained": 100 * file["explained"] / file["rows"] if file["rows"] else None,
        "mask_mean": file["mask"]["mean"],
        "segments": file["segments"]["per_read_mean"],
    }
    for rank in file["ranks"]:
        if rank["kept"] is not None and rank["called"]:
            values[f"kept_{rank['name']}"] = 100 * rank["kept"] / rank["called"]
    return {name: value for name, value in values.items() if value is not None}
