"""The page that trains a classifier and an Explainer from start to finish can be followed to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pages import folder_with_examples, follow

from wyr_batch.bundle import load_bundle
from wyr_batch.cli import main


@pytest.mark.filterwarnings("ignore")  # of transformers' and accelerate's own making
def test_train_your_own_from_start_to_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder_with_examples(tmp_path))
    follow("train-your-own.md")
    assert [rank.name for rank in load_bundle(Path("my_bundle")).ranks] == ["superkingdom", "phylum"]
    masks = pq.read_table("own.parquet")
    assert (len(masks), set(masks["status"].to_pylist())) == (1000, {"ok"})
    assert masks["mask_mean"].null_count == 0
    assert "## Table 1" in Path("evaluation/evaluation.md").read_text()
    capsys.readouterr()
    assert main(["info", "my_bundle", "--json"]) == 0
    metrics = json.loads(Path("evaluation/evaluation.json").read_text())
    del metrics["tradeoff"], metrics["figure_data"]  # for the evaluation's own page
    assert json.loads(capsys.readouterr().out)["metrics"] == metrics
    Path("two.fasta").write_text(">r1\n" + "A" * 100 + "\n>r2\n" + "ACGTT" * 90 + "\n")
    assert main(["run", "two.fasta", "-q", "-m", "my_bundle", "-o", "two.parquet"]) == 0
    assert pq.read_table("two.parquet")["status"].to_pylist() == ["ok", "windowed"]
