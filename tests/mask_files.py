"""Masks files for the tests of what reads them: rows made by hand, and reads with qualities."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RANKS = ("superkingdom", "genus")


class Row(NamedTuple):
    """A read of a masks file; `mask` None: it has none, as an empty or failed one."""

    read_id: str
    length: int
    mask: Sequence[float] | None
    calls: tuple[str | None, str | None] = ("Bacteria", "Vibrio")
    mate: int = 0


def write_masks(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as `run` does, each token 6 bases but the last, which goes to the end of its read."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("read_id", "mate", "length", "n_tokens", "status", "mask", "token_start", "segments")
    }
    for row in rows:
        mask = None if row.mask is None else np.asarray(row.mask, np.float32)
        starts = None if mask is None else np.arange(len(mask)) * 6
        columns["read_id"].append(row.read_id)
        columns["mate"].append(row.mate)
        columns["length"].append(row.length)
        columns["n_tokens"].append(0 if mask is None else len(mask))
        columns["status"].append("failed" if mask is None else "ok")
        columns["mask"].append(None if mask is None else mask.tolist())
        columns["token_start"].append(None if starts is None else starts.tolist())
        columns["segments"].append(None if mask is None else segments_of(mask, row.length))
    segment = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("mean", pa.float32())])
    types = {
        "mate": pa.int8(),
        "mask": pa.list_(pa.float32()),
        "token_start": pa.list_(pa.int32()),
        "segments": pa.list_(segment),
    }
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    arrays["mask_mean"] = pa.array([None if r.mask is None else float(np.mean(r.mask)) for r in rows], pa.float32())
    for r, rank in enumerate(RANKS):
        calls = [None if row.mask is None else row.calls[r] for row in rows]
        arrays[rank] = pa.array(calls, pa.string()).dictionary_encode()
        arrays[f"{rank}_prob"] = pa.array([0.75 if row.mask is not None else None for row in rows], pa.float32())
    pq.write_table(pa.table(arrays), path)
    return path


def segments_of(mask: np.ndarray[Any, Any], length: int) -> list[dict[str, Any]]:
    """Return the runs of tokens of at least 0.5, one token after the other."""
    found: list[dict[str, Any]] = []
    ends = [*(6 * (i + 1) for i in range(len(mask) - 1)), length]
    for i, value in enumerate(mask.tolist()):
        if value >= 0.5 and found and found[-1]["end"] == 6 * i:
            found[-1]["end"] = ends[i]
            found[-1]["values"].append(value)
        elif value >= 0.5:
            found.append({"start": 6 * i, "end": ends[i], "values": [value]})
    return [{"start": s["start"], "end": s["end"], "mean": float(np.mean(s["values"]))} for s in found]


class FastqRead(NamedTuple):
    read_id: str
    bases: str
    qualities: str


def fastq_reads(n: int, longest: int = 700, seed: int = 1) -> list[FastqRead]:
    """Return reads of 0 bases on, some letters N or in lower case, with qualities of all values."""
    draw = random.Random(seed)
    lengths = [0, 3, longest, *(draw.randint(20, 250) for _ in range(n - 3))]
    return [
        FastqRead(
            f"r{i}",
            "".join(draw.choices("ACGTNacgt", [9, 9, 9, 9, 1, 2, 2, 2, 2], k=length)),
            "".join(map(chr, draw.choices(range(33, 127), k=length))),
        )
        for i, length in enumerate(lengths)
    ]


def fastq_text(reads: Sequence[FastqRead]) -> str:
    return "".join(f"@{read.read_id} of some\n{read.bases}\n+\n{read.qualities}\n" for read in reads)
