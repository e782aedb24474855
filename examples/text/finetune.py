"""Fine-tune the encoder on the sentences: a classifier of two labels, as transformers saves and loads it.

    pip install -e '.[train]'
    python examples/text/finetune.py review

    review/classifier/           the epoch that was best on the validation part (AutoModelForSequenceClassification)
    review/classifier.json       accuracies of every epoch, and of the best on the test part, looked at once

The head is transformers' own: [CLS] through a tanh layer, then two logits. All weights are trained, in float32 with
AdamW; the rate rises over a tenth of the steps and falls to 0. Batches hold texts of similar length. The same seed and
number of threads give the same weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

LABELS = ("negative", "positive")
SORTED_BATCHES = 20  # texts are sorted by length within so many batches
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Part:
    """Texts of one split: token ids with special tokens, and labels int64 [n]."""

    ids: list[list[int]]
    labels: Tensor

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Return padded input_ids and attention_mask, int64 [B, T], and labels int64 [B]; [PAD] is 0."""
        ids = nn.utils.rnn.pad_sequence([torch.tensor(self.ids[row]) for row in rows], batch_first=True)
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}, self.labels[rows]

    def batches(self, size: int, random: np.random.Generator | None = None) -> Iterator[np.ndarray]:
        """Yield rows of one batch after another: in random order, or without `random` all sorted by length."""
        lengths = np.array([len(ids) for ids in self.ids])
        order = random.permutation(len(lengths)) if random else np.arange(len(lengths))
        block = SORTED_BATCHES * size if random else len(order)
        blocks = [order[start : start + block] for start in range(0, len(order), block)]
        order = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in blocks])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        yield from (batches[i] for i in (random.permutation(len(batches)) if random else range(len(batches))))


def read_parts(path: Path, tokenizer: Any) -> dict[str, Part]:
    """Return the splits of a table that prepare.py wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ids = tokenizer([row["text"] for row in rows], truncation=True)["input_ids"]
    parts = {}
    for split in ("train", "validation", "test"):
        places = [i for i, row in enumerate(rows) if row["split"] == split]
        labels = torch.tensor([LABELS.index(rows[i]["label"]) for i in places])
        parts[split] = Part([ids[i] for i in places], labels)
    return parts


@torch.no_grad()
def accuracy(model: nn.Module, part: Part, size: int) -> float:
    """Return the share of texts that get their label."""
    model.eval()
    n_right = 0
    for rows in part.batches(size):
        inputs, labels = part.batch(rows)
        n_right += int((model(**inputs).logits.argmax(dim=1) == labels).sum())
    return round(n_right / len(part.ids), 4)


def train(model: nn.Module, parts: dict[str, Part], args: argparse.Namespace, save: Path) -> list[dict[str, float]]:
    """Train, save the epoch that is best on the validation part, and return what each epoch gave."""
    part, random = parts["train"], np.random.default_rng(args.seed)
    n_steps = args.epochs * -(-len(part.ids) // args.batch_size)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, n_steps // 10, n_steps)
    epochs: list[dict[str, float]] = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        start_s, losses = time.perf_counter(), []
        for rows in part.batches(args.batch_size, random):
            inputs, labels = part.batch(rows)
            loss = model(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if len(losses) % 50 == 0:
                rate = len(losses) / (time.perf_counter() - start_s)
                print(
                    f"epoch {epoch} step {len(losses)} loss {np.mean(losses[-50:]):.4f} {rate:.2f} steps/s", flush=True
                )
        seconds = round(time.perf_counter() - start_s, 1)
        right = accuracy(model, parts["validation"], args.batch_size)
        if right > max((each["validation"] for each in epochs), default=0.0):
            model.save_pretrained(save)
        epochs.append({"loss": round(float(np.mean(losses)), 4), "validation": right, "seconds": seconds})
        print(f"epoch {epoch}: {epochs[-1]}", flush=True)
    return epochs


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", type=Path, help="what prepare.py wrote")
    parser.add_argument("--name", default="classifier", help="of the folder and the JSON that are written")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    save = args.folder / args.name
    tokenizer = AutoTokenizer.from_pretrained(args.folder / "encoder")
    tokenizer.save_pretrained(save)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model = AutoModelForSequenceClassification.from_pretrained(args.folder / "encoder", num_labels=2, **names)
    parts = read_parts(args.folder / "snippets.csv", tokenizer)
    epochs = train(model, parts, args, save)
    best = AutoModelForSequenceClassification.from_pretrained(save)
    result = {
        "settings": {name: value for name, value in vars(args).items() if name not in ("folder", "name")},
        "threads": torch.get_num_threads(),
        "texts": {name: len(part.ids) for name, part in parts.items()},
        "epochs": epochs,
        "accuracy": {name: accuracy(best, part, args.batch_size) for name, part in parts.items()},
    }
    (args.folder / f"{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["accuracy"]))


if __name__ == "__main__":
    main()
