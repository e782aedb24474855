"""The page that trains a classifier and an Explainer from start to finish can be followed to its end."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pages import folder_with_examples, follow

from wyr_batch.bundle import load_bundle


@pytest.mark.filterwarnings("ignore")  # of transformers' and accelerate's own making
def test_train_your_own_from_start_to_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder_with_examples(tmp_path))
    follow("train-your-own.md")
    assert [rank.name for rank in load_bundle(Path("my_bundle")).ranks] == ["superkingdom", "phylum"]
    masks = pq.read_table("own.parquet")
    assert (len(masks), set(masks["status"].to_pylist())) == (1000, {"ok"})
    assert masks["mask_mean"].null_count == 0
    assert "## Table 1" in Path("evaluation/evaluation.md").read_text()
