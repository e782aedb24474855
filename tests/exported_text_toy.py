"""A toy bundle of texts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from test_family_graphs import explainer_of
from toy_families import toy
from wyr_batch.export.write_bundle import export_bundle

from wyr_batch.models.checkpoints import save_explainer


def export_text_toy(folder: Path) -> None:
    """Export the tiny BERT of toy_families.py in one layer, with windows of 22 words."""
    with TemporaryDirectory(dir=folder.parent) as explainer:
        made = toy("bert", n_layers=1)
        save_explainer(explainer_of(made.model, "lstm"), Path(explainer), {})
        export_bundle(made.folder, Path(explainer), folder, name="toy", window_bp=1500, max_tokens=24, threads=1)
