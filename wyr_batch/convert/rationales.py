"""JSON lines for tools that work with texts, one a text: ERASER's rationales, and segments as displaCy draws them.

`eraser` is what the ERASER benchmark takes as the output of a model:

    {"annotation_id", "rationales": [{"docid", "hard_rationale_predictions", "soft_rationale_predictions"}],
     "classification", "classification_scores"}

Its tokens are the words of a text between spaces and line ends. A word has the mean mask of the tokens that lie in it,
and a run of words of 0.5 or more is a hard rationale.

`displacy` is what spaCy's `displacy.render(documents, style="ent", manual=True)` takes as documents:

    {"text", "ents": [{"start", "end", "label"}, ...], "title"}

displaCy escapes the text, but puts labels and titles into its page as they are; so these are written with &, < and > as
HTML has them.

Sources: DeYoung et al., ERASER, ACL 2020, and in the benchmark's repository `rationale_benchmark/metrics.py` (fields,
half-open spans) and `utils.py` (words); spaCy's documentation, "Visualizers".
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

import numpy as np

from wyr_batch.convert.conversion import Conversion, Written, mask_column
from wyr_batch.convert.output import text_output
from wyr_batch.draw.kinds import is_multi_label
from wyr_batch.draw.read import KEPT
from wyr_batch.errors import UsageError
from wyr_batch.masks.bases import with_bases
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.ranks import coarse_to_fine
from wyr_batch.tokens.tokens import Int32s, Int64s
from wyr_batch.tokens.windows import Float32s

_WORD = re.compile(r"[^ \r\n]+")
_DECIMALS = 4
_LINE_ENDS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}
KEPT_LABEL = "kept"


def write_eraser(conversion: Conversion, *, rank: str | None, rank_mask: str | None) -> Written:
    """Write the rationale of each text that has a mask and a call, for ERASER; the others are left out.

    Args:
        rank: whose call is the classification; None: the finest, of which a multi-label classifier has none.
        rank_mask: the mask of this rank; None: that of all ranks together.
    Raises: UsageError, InputError, OutputError.
    """
    masks = conversion.masks
    column = mask_column(masks, rank_mask)
    named = rank or coarse_to_fine(masks.ranks)[-1]
    if named not in masks.ranks:
        raise UsageError("--rank", named, f"one of {', '.join(masks.ranks)}: the ranks in {masks.shown}")
    calls = [name for name in (named, f"{named}_prob", f"{named}_top") if name in masks]
    n_written = 0
    with text_output(conversion.output) as out:
        for rows, bases in with_bases(masks, conversion.reads, [*calls, column, "token_start"]):
            if rank is None:
                _check_one_label(rows, masks)
            tokens = rows.masks(column)
            ids, labels = rows.texts("read_id"), rows.texts(named)
            lines = []
            for i, (text_id, label) in enumerate(zip(ids, labels, strict=True)):
                part = slice(int(tokens.offsets[i]), int(tokens.offsets[i + 1]))
                if label is None or part.start == part.stop:
                    continue
                words = np.array([m.span() for m in _WORD.finditer(bases.of(i)) if m.group().strip()], np.int64)
                means = word_means(words.reshape(-1, 2), tokens.values[part], tokens.starts[part], tokens.ends[part])
                rationale = {
                    "docid": text_id,
                    "hard_rationale_predictions": hard_spans(means),
                    "soft_rationale_predictions": means.round(_DECIMALS).tolist(),
                }
                scores = _scores(rows, i, named, label)
                found: dict[str, Any] = {"annotation_id": text_id, "rationales": [rationale]}
                found |= {"classification": label, "classification_scores": scores}
                lines.append(_json_line(found))
            out.write("".join(lines).encode())
            n_written += len(lines)
    return Written(masks.n_rows, n_written, "rationales")


def word_means(words: Int64s, values: Float32s, starts: Int32s, ends: Int32s) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean mask of each word over the tokens that lie in it, or reach into it; 0 where none does.

    Args:
        words: int64 [W, 2], code points, half-open; values: float32 [T]; starts, ends: int32 [T].

    >>> spans = np.array([[0, 5], [6, 9]])
    >>> word_means(spans, np.array([1.0, 0.5, 0.25]), np.array([0, 3, 6]), np.array([3, 5, 9])).tolist()
    [0.75, 0.25]
    """
    first = np.searchsorted(ends, words[:, 0], side="right")
    last = np.maximum(np.searchsorted(starts, words[:, 1], side="left"), first)
    sums = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    means: np.ndarray[Any, np.dtype[np.float64]] = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return means


def hard_spans(means: np.ndarray[Any, np.dtype[np.float64]]) -> list[dict[str, int]]:
    """Return the runs of words whose value is 0.5 or more, half-open."""
    kept = np.concatenate(([False], means >= KEPT, [False])).astype(np.int8)
    edges = np.flatnonzero(np.diff(kept)).tolist()
    return [{"start_token": a, "end_token": b} for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _json_line(found: dict[str, Any]) -> str:
    """Return one line of JSON; what some readers take for the end of a line, inside a text, is an escape."""
    return json.dumps(found, ensure_ascii=False).translate(_LINE_ENDS) + "\n"


def _scores(rows: MaskRows, i: int, rank: str, label: str) -> dict[str, float]:
    """Return the probabilities of the labels that the run kept, at least that of the call."""
    if f"{rank}_top" in rows.batch.schema.names:
        top = rows.column(f"{rank}_top")[i].as_py() or ()
        return {best["label"]: best["prob"] for best in top}
    return {label: rows.column(f"{rank}_prob")[i].as_py()}


def _check_one_label(rows: MaskRows, masks: MaskFile) -> None:
    """Raise UsageError where each rank says yes or no, so that no single one is the classification."""
    if len(masks.ranks) < 2:
        return
    seen = set(rows.column(coarse_to_fine(masks.ranks)[-1]).unique().to_pylist())
    if is_multi_label(seen, len(masks.ranks)):
        expected = f"one of {', '.join(masks.ranks)}: a text has one classification there"
        raise UsageError("--rank", "none, for a classifier of several labels", expected)


def write_displacy(conversion: Conversion, *, rank: str | None) -> Written:
    """Write each text with its segments, for displaCy; one without a mask has none.

    Args:
        rank: whose call labels the segments; None: the only one, and `kept` where there are several or no call.
    Raises: UsageError, InputError, OutputError.
    """
    masks = conversion.masks
    if rank is not None and rank not in masks.ranks:
        raise UsageError("--rank", rank, f"one of {', '.join(masks.ranks)}: the ranks in {masks.shown}")
    named = rank or (masks.ranks[0] if len(masks.ranks) == 1 else None)
    with text_output(conversion.output) as out:
        for rows, bases in with_bases(masks, conversion.reads, ["segments", *([named] if named else [])]):
            segments = rows.segments()
            labels = rows.texts(named) if named else [None] * len(rows)
            mates = rows.numbers("mate").tolist()
            lines = []
            for i, (text_id, label) in enumerate(zip(rows.texts("read_id"), labels, strict=True)):
                part = slice(int(segments.offsets[i]), int(segments.offsets[i + 1]))
                spans = zip(segments.start[part].tolist(), segments.end[part].tolist(), strict=True)
                name = escape(label or KEPT_LABEL, quote=False)
                found = {
                    "text": bases.of(i),
                    "ents": [{"start": start, "end": end, "label": name} for start, end in spans],
                    "title": escape(f"{text_id or ''}{f'/{mates[i]}' if mates[i] else ''}", quote=False),
                }
                lines.append(_json_line(found))
            out.write("".join(lines).encode())
    return Written(masks.n_rows, masks.n_rows, "documents")
