"""One toy bundle that holds all a bundle can: every precision, long rows, masks of exact zeros, weights as float16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from toy_models import save_toy_checkpoints, silent_explainer, toy_explanandum
from wyr_batch.export.write_bundle import export_bundle

from wyr_batch.bundle import Bundle
from wyr_batch.models.checkpoints import load_explainer, load_explanandum
from wyr_batch.models.fused import Fused
from wyr_batch.proof.compare import THRESHOLDS

MAX_TOKENS = 2053
SETTINGS: dict[str, Any] = {"name": "toy", "window_bp": 3000, "max_tokens": MAX_TOKENS, "threads": 1}
SHORT = {**SETTINGS, "window_bp": 300, "max_tokens": 70}  # sooner proven
DTYPES = ("float32", "float16", "bfloat16")


def export_toy(folder: Path) -> None:
    """Export it; its random classes are often all but tied, so fewer labels need to agree than in a trained model."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(dir=folder.parent) as checkpoints:
        for dtype in DTYPES[1:]:
            patch.setitem(THRESHOLDS, dtype, replace(THRESHOLDS[dtype], agreement=0.9, mask_mean=0.1))
        models = {"explanandum": toy_explanandum(num_layers=1, max_tokens=MAX_TOKENS), "explainer": silent_explainer()}
        export_bundle(
            *save_toy_checkpoints(Path(checkpoints), **models),
            folder,
            **SETTINGS,
            dtypes=DTYPES,
            metrics={"area": 0.25},
            licence="CC0-1.0",
            half_checkpoint=True,
            compact=True,
        )


def own_checkpoint(folder: Path) -> tuple[Path, Path]:
    """Return the two checkpoints inside a bundle."""
    return folder / "checkpoint" / "explanandum", folder / "checkpoint" / "explainer"


def models_of(bundle: Bundle) -> Fused:
    """Return the torch models that a bundle was made from."""
    explanandum, explainer = own_checkpoint(bundle.folder)
    return Fused(load_explanandum(explanandum)[0], load_explainer(explainer)).eval()
