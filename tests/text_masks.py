"""Masks files of texts and proteins for the tests of what reads them, as `run` writes them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.draw.words import word_numbers, word_segments

# A letter with its marks is one token or more; spaces are in none.
TOKEN = re.compile(r"\w{1,5}|[^\w\s]")
HARD_TEXTS = (
    "A triumph of restraint; it isn't dull.",
    "👨‍👩‍👧 loved it 👍🏽!! ❤️ 🇩🇪",
    "e\u0301tude, cafe\u0301 and Zalgo h\u0335\u0301e\u0302y",
    "فيلم رائع جدا، أنصح به",
    "שלום עולם, a very good film 10/10",
    "这部电影非常好看，我很喜欢。",
    "first line\r\nsecond line\n\n  third\tline\r",
    '<b onclick="x()">bold</b> & &amp; </div><script>alert(1)</script>',
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2,
    "",
    "   \n \t ",
    "\x1b[31mred\x1b[0m \x07\u202eevil\u202c \u2028 \x9b \ufeff[brackets]",
)


class Text(NamedTuple):
    """A text of a masks file; `mask` None: one value a token at random."""

    text: str
    mask: Sequence[float] | None = None


def spans_of(text: str) -> np.ndarray[Any, Any]:
    """Return start and end of each token of a text, int32 [T, 2]."""
    return np.array([match.span() for match in TOKEN.finditer(text)], np.int32).reshape(-1, 2)


def write_texts(
    path: Path,
    texts: Sequence[Text],
    calls: dict[str, Sequence[tuple[str, float, str, float]]],
    *,
    kind: str | None = "text",
    unit: str = "characters",
    sequences: bool = True,
    seed: int = 1,
) -> Path:
    """Write a masks file.

    Args:
        calls: for each rank label, probability, and the same under the mask, of each text.
        kind, unit: of the footer; no footer without a kind.
    """
    draw = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in _TYPES}
    for i, (text, mask) in enumerate(texts):
        spans = spans_of(text)
        starts, ends = spans[:, 0], spans[:, 1]
        values = np.asarray(draw.random(len(spans)) if mask is None else mask, np.float32)
        words = word_numbers(text, starts, ends) if kind == "text" else np.arange(len(spans), dtype=np.int32)
        has_any = len(spans) > 0
        segments = [
            dict(zip(("start", "end", "mean"), s, strict=True)) for s in word_segments(values, starts, ends, words)
        ]
        row = {"read_id": str(i + 1), "mate": 0, "length": len(text), "n_tokens": len(spans)}
        row |= {"status": "ok" if has_any else "empty", "mask_mean": float(values.mean()) if has_any else None}
        row |= {
            "token_start": starts.tolist(),
            "token_end": ends.tolist(),
            "mask": values.tolist(),
            "segments": segments,
        }
        for name in _TYPES:
            columns[name].append(None if name in _LISTS and not has_any else row[name])
    arrays = {name: pa.array(values, _TYPES[name]) for name, values in columns.items()}
    absent = np.array([not values for values in columns["n_tokens"]])
    for rank, of_rank in calls.items():
        for place, (end, type_) in enumerate(_CALLS.items()):
            found = pa.array([call[place] for call in of_rank], type_, mask=absent)
            arrays[rank + end] = found.dictionary_encode() if type_ == pa.string() else found
    if sequences:
        arrays["sequence"] = pa.array([text for text, _ in texts], pa.string())
    footer = {} if kind is None else {"wyr": json.dumps({"input": kind, "unit": unit, "inputs": ["texts.csv"]})}
    pq.write_table(pa.table(arrays).replace_schema_metadata(footer), path)
    return path


_SEGMENT = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("mean", pa.float32())])
_LISTS = ("mask", "token_start", "token_end", "segments", "mask_mean")
_TYPES = {
    "read_id": pa.string(),
    "mate": pa.int8(),
    "length": pa.int32(),
    "n_tokens": pa.int32(),
    "status": pa.string(),
    "mask": pa.list_(pa.float32()),
    "token_start": pa.list_(pa.int32()),
    "token_end": pa.list_(pa.int32()),
    "segments": pa.list_(_SEGMENT),
    "mask_mean": pa.float32(),
}
_CALLS = {"": pa.string(), "_prob": pa.float32(), "_masked": pa.string(), "_masked_prob": pa.float32()}


def one_label(n: int, labels: Sequence[str] = ("negative", "positive"), seed: int = 2) -> dict[str, Any]:
    """Return the calls of a classifier of one label, of which some change under the mask."""
    draw = random.Random(seed)
    called = [(draw.choice(labels), draw.uniform(0.5, 1), draw.uniform(0.4, 1)) for _ in range(n)]
    kept = [label if draw.random() < 0.8 else draw.choice(labels) for label, _, _ in called]
    return {"label": [(label, prob, other, under) for (label, prob, under), other in zip(called, kept, strict=True)]}


def many_labels(n: int, names: Sequence[str], seed: int = 3) -> dict[str, Any]:
    """Return the calls of a multi-label classifier: yes or no for each label, the first ones most often yes."""
    draw = random.Random(seed)

    def call(share: float) -> tuple[str, float, str, float]:
        plain = draw.random() < share
        masked = plain if draw.random() < 0.85 else not plain
        return ("no", "yes")[plain], draw.uniform(0.5, 1), ("no", "yes")[masked], draw.uniform(0.5, 1)

    return {name: [call(0.5 / (i + 1)) for _ in range(n)] for i, name in enumerate(names)}
