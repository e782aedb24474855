"""The text of a bundle.json: what `wyr_batch.bundle.load_bundle` reads."""

from __future__ import annotations

import json
from typing import Any

from wyr_batch.bundle import FAMILIES_VERSION, NT_FAMILY, SCHEMA_VERSION, Bundle
from wyr_batch.ranks import ranks_to_json


def bundle_json(bundle: Bundle) -> str:
    """Return the text of a bundle.json; the bundle's folder is not part of it."""
    is_nt = bundle.family == NT_FAMILY
    about: dict[str, Any] = {"schema_version": SCHEMA_VERSION if is_nt else FAMILIES_VERSION, "name": bundle.name}
    if not is_nt:
        about |= {"family": bundle.family, "input": bundle.input, "mask_site": bundle.mask_site}
        about["multi_label"] = bundle.multi_label
    about |= {
        "ranks": ranks_to_json(bundle.ranks),
        "tokenizer": bundle.vocabulary.to_json(),
        "max_tokens": bundle.max_tokens,
    }
    about |= {"window_bp": bundle.window_bp} if is_nt else {"window_tokens": bundle.window_tokens}
    about |= {
        "pooling": bundle.pooling,
        "files": [{"path": f.path, "sha256": f.sha256, "dtype": f.dtype, "kind": f.kind} for f in bundle.files],
        "training": bundle.training,
        "metrics": bundle.metrics,
        "licence": bundle.licence,
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
