"""Segments as spaCy's displaCy draws them: JSON lines, one a text, each what `displacy.render` takes as a document.

    displacy.render([json.loads(line) for line in open("masks.jsonl")], style="ent", manual=True)

    {"text", "ents": [{"start", "end", "label"}, ...], "title"}

displaCy escapes the text, but puts labels and titles into its page as they are; so these are written with &, < and > as
HTML has them.

Source: spaCy's documentation, "Visualizers", rendering data manually.
"""

from __future__ import annotations

import json
from html import escape

from wyr_batch.convert.conversion import Conversion, Written
from wyr_batch.convert.output import text_output
from wyr_batch.errors import UsageError
from wyr_batch.masks.bases import with_bases

KEPT_LABEL = "kept"


def write_displacy(conversion: Conversion, *, rank: str | None) -> Written:
    """Write each text with its segments; one without a mask has none.

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
                lines.append(json.dumps(found, ensure_ascii=False) + "\n")
            out.write("".join(lines).encode())
    return Written(masks.n_rows, masks.n_rows, "documents")
