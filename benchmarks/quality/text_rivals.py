"""The Explainer of texts against other explanations: same texts, same classifier, same machine.

    pip install captum scikit-learn
    python -m benchmarks.quality.text_rivals review/snippets.csv --classifier review/classifier \\
        --bundle review/bundle -o benchmarks/results/text_rivals.json

Every method scores the tokens of each text for the class called. A token is hidden as everywhere in this project: its
word embedding times 0; its position stays, and so do special tokens.

- explainer: the mask of `wyr-batch run`, of all texts in one call, the plain and the masked pass included;
- integrated_gradients: captum's LayerIntegratedGradients on the word embeddings, from [PAD] at every token;
- kernel_shap: captum, on hidden tokens;
- lime: as the LIME package does it for texts, on hidden tokens;
- attn_lrp: AttnLRP, one backward pass (text_lrp.py);
- leave_one_out: what the class loses when a token is hidden, one pass a token;
- random: random scores.

All but the Explainer take a text at a time, all its samples in batches of 64 rows. Measures, means over texts with a
95 % interval:

- comprehensiveness, sufficiency: what the class's probability loses when the best-scored 1, 5, 10, 20 and 50 % of
  tokens are hidden, and when all others are; at least one token (DeYoung et al., "ERASER", ACL 2020);
- segment_...: the same of whole segments, which are runs of the best half of the tokens: the best one, half, all;
- ..._deleted: the same with the tokens cut out of the text, which no method was made for;
- chimera_auc: two texts of different class joined; how often a token of the half whose class is asked for scores higher
  than one of the other half, mean over both questions.

Without `--bundle` the rivals are measured alone.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kit
from benchmarks.tables import Json, markdown

BEST = {"comprehensiveness": "higher", "sufficiency": "lower"}
BEST |= {f"segment_{name}": best for name, best in BEST.items()}
BEST |= {f"{name}_deleted": best for name, best in BEST.items()}
BEST["chimera_auc"] = "higher"


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("data", type=Path, help="CSV with the columns text, label and split")
    parser.add_argument("--classifier", type=Path, required=True, help="a folder that transformers loads")
    parser.add_argument("--bundle", type=Path, help="an exported Explainer of this classifier")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--chimeras", type=int, default=30)
    parser.add_argument("--samples", type=int, default=200, help="of LIME and KernelSHAP")
    parser.add_argument("--steps", type=int, default=50, help="of integrated gradients")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch

    from benchmarks.quality.text_measures import Classifier, choose_chimeras, position_auc
    from benchmarks.quality.text_methods import Rivals, explainer_scorer

    warnings.filterwarnings("ignore")  # of captum: it warns for every text
    torch.manual_seed(args.seed)
    classifier = Classifier(args.classifier)
    texts, labels = read_texts(args.data, args.split, classifier.labels)
    chimeras = choose_chimeras(classifier, texts, labels, args.chimeras, args.seed)
    if len(chimeras) < 2:
        parser.error(f"got {len(chimeras)} chimeras, expected at least 2: too few texts are called rightly and surely.")
    chosen = np.sort(np.random.default_rng(args.seed).permutation(len(texts))[: args.texts])
    texts = [texts[i] for i in chosen]
    called = classifier.calls(texts)[0]
    rivals = Rivals(classifier, args.samples, args.steps, args.seed)
    scorers = {"explainer": explainer_scorer(args.bundle, classifier)} if args.bundle else {}
    scorers |= {name: rivals.scorer(name) for name in rivals.methods}
    methods = {}
    for name, scorer in scorers.items():
        scorer(texts[:2], called[:2])  # warm up
        scores: list[Any] = []
        took = kit.timed(lambda s=scorer, out=scores: out.extend(s(texts, called)))
        seconds = {
            "seconds_per_text": round(took.wall_s / len(texts), 6),
            "cpu_seconds_per_text": round(took.cpu_s / len(texts), 6),
        }
        values = measured(classifier, texts, called, scores) | {
            "chimera_auc": position_auc(classifier, chimeras, scorer)
        }
        methods[name] = seconds | {m: interval(v) for m, v in values.items()}
        print(name, json.dumps(methods[name]), flush=True)
    result = {
        "threads": torch.get_num_threads(),
        "split": args.split,
        "labels": classifier.labels,
        "texts": len(texts),
        "tokens": sum(len(classifier.read(text)) for text in texts),
        "chimeras": len(chimeras),
        "samples": args.samples,
        "steps": args.steps,
        "methods": methods,
    }
    kit.write_result(args.output, "text_rivals", result)


def read_texts(path: Path, split: str, labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the texts of one split, and the class of each."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [row["text"] for row in rows], [labels.index(row["label"]) for row in rows]


def measured(classifier: Any, texts: Sequence[str], classes: Sequence[int], scores: Sequence[Any]) -> Json:
    """Return each measure of every text."""
    from benchmarks.quality.text_measures import faithfulness

    rows = [
        faithfulness(classifier, classifier.read(text), target, given)
        for text, target, given in zip(texts, classes, scores, strict=True)
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and half its 95 % interval."""
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": round(float(np.mean(values)), 4), "half": round(float(half), 4)}


def table(data: Json) -> str:
    methods = data["methods"]
    lines = []
    for name, row in methods.items():
        measures = [f"{row[m]['mean']:.3f} ± {row[m]['half']:.3f}" for m in BEST]
        lines.append(
            [name.replace("_", " "), f"{row['seconds_per_text']:.4f}", f"{row['cpu_seconds_per_text']:.4f}", *measures]
        )
    head = [
        "method",
        "s a text",
        "CPU s a text",
        *(f"{measure.replace('_', ' ')} ({best})" for measure, best in BEST.items()),
    ]
    about = (
        f"{data['texts']:,} texts of the test part ({data['tokens']:,} tokens) and {data['chimeras']} chimeras; each "
        "text by its class called. What the methods and measures are stands at the head of "
        "`benchmarks/quality/text_rivals.py`."
    )
    return f"{about}\n\n{markdown(head, lines)}"


if __name__ == "__main__":
    main()
