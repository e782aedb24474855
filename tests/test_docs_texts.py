"""The page that explains a classifier of texts, from its folder to a report with words, can be followed to its end."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from pages import ROOT, follow
from toy_texts import LABELS, SIGNAL, SIZES, VOCABULARY, made_texts, save_wordpieces

from wyr_batch.bundle import load_bundle
from wyr_batch.masks.file import open_masks
from wyr_batch.models.families.quiet import quiet_transformers

EXAMPLE = Path("examples", "text")
SHORT = {"steps": 20, "evaluate_every": 10, "batch_reads": 8, "validation_reads": 40}
NAMES = {"bad": "negative", "good": "positive"}  # as the page has them
MAX_TOKENS = 128  # as the page exports


def save_snippets(path: Path) -> None:
    """Write a table as prepare.py does, of texts whose label one word decides."""
    made = made_texts(360, 0)
    splits = ["train"] * 240 + ["validation"] * 60 + ["test"] * 60
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "score", "split"])
        for i, (text, (label,), split) in enumerate(zip(made.texts, made.labels, splits, strict=True)):
            writer.writerow([i + 1, text, NAMES[LABELS[label]], [-2.0, 2.0][label], split])


def save_classifier(folder: Path) -> None:
    """Write a classifier as finetune.py does, with random weights that decide, of one layer: it is exported sooner."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **{**SIZES, "num_hidden_layers": 1},
        vocab_size=len(VOCABULARY),
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,
        id2label=dict(enumerate(NAMES.values())),
        label2id={name: i for i, name in enumerate(NAMES.values())},
        pad_token_id=0,
    )
    with quiet_transformers():
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    save_wordpieces(folder)


def short_settings() -> str:
    """Return the settings of the page's training, with less to do."""
    text = (ROOT / EXAMPLE / "explainer.toml").read_text()
    for name, value in SHORT.items():
        text, n = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert n == 1, name
    return text


@pytest.mark.filterwarnings("ignore")  # of transformers' and accelerate's own making
def test_the_example_of_texts_from_table_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("review").mkdir()
    save_snippets(Path("review", "snippets.csv"))
    save_classifier(Path("review", "classifier"))
    EXAMPLE.mkdir(parents=True)
    (EXAMPLE / "explainer.toml").write_text(short_settings())
    follow("../examples/text/README.md")
    (rank,) = load_bundle(Path("review", "bundle")).ranks
    assert rank.labels == ("negative", "positive")
    table = pq.read_table("masks.parquet")
    assert (len(table), set(table["status"].to_pylist())) == (360, {"ok"})
    assert open_masks(Path("masks.parquet")).footer["input"] == "text"
    assert "## Chimeras" in Path("review", "evaluation", "evaluation.md").read_text()
    page = Path("report.html").read_text()
    assert all(word in page for word in SIGNAL.values()), "words of the texts are shown"
    assert "360 texts" in page
