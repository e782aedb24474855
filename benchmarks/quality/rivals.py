"""The Explainer against other explanations: same reads, same classifier, same machine.

    pip install captum scikit-learn
    python -m benchmarks.quality.rivals markers.parquet -o benchmarks/results/rivals.json

Every method scores the tokens of each read for the class called at each rank, one rank at a time where it has to.
A token is hidden as everywhere in this project: its embedding and its pooled state times 0.

- explainer: masks per rank, all ranks and a batch of reads at once, the plain pass that finds the calls included;
- mask: the same, the maximum over ranks (column `mask` of `wyr-batch run`) for every rank;
- evidence: what each token's own final hidden state adds to the class's logit against its rivals, one plain pass;
- smoothed_evidence: the same, averaged over neighbours with a Gaussian of 10 tokens;
- attn_lrp: AttnLRP, one backward pass for each rank (attn_lrp.py);
- lime, kernel_shap: captum, their default sample counts (50 and 25), all samples of a read in one batch;
- lime_5000: the default count of the original LIME package, on `--slow-reads` reads only;
- ablation: captum's FeatureAblation, one token at a time; integrated_gradients: captum, 50 steps from all hidden;
- rollout: attention rollout (Abnar and Zuidema, ACL 2020), the same for every rank;
- random: random scores.

`seconds_per_read` is for all ranks. Measures: see `wyr_batch.train.measure.faithfulness`, each rank with that rank's
scores; region measures with the best half of the tokens as regions (`measure.regions`); `chimera_auc` on chimeras of
the same part (`measure.chimeras`), 8 a rank for methods that take a read at a time.
"""

from __future__ import annotations

import json
import statistics
import warnings
from pathlib import Path

import numpy as np

from benchmarks import kit
from benchmarks.tables import Json, markdown
from wyr_batch.bundle import starter_path

WINDOW_BP = 1500
BEST = {"comprehensiveness": "higher", "sufficiency": "lower", "deletion_auc": "lower", "insertion_auc": "higher"}
BEST |= {"region_comprehensiveness": "higher", "region_sufficiency": "lower", "chimera_auc": "higher"}


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("data", type=Path, help="what wyr-batch train prepare wrote")
    parser.add_argument("--explanandum", type=Path, default=starter_path() / "checkpoint" / "explanandum")
    parser.add_argument("--explainer", type=Path, default=starter_path() / "checkpoint" / "explainer")
    parser.add_argument("--reads", type=int, default=200)
    parser.add_argument("--slow-reads", type=int, default=4)
    parser.add_argument("--chimeras", type=int, default=60, help="for each rank")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch
    from wyr_batch.train.data.batches import evaluation_batch
    from wyr_batch.train.data.labelled import load_reads, read_table
    from wyr_batch.train.measure.chimeras import choose_chimeras
    from wyr_batch.train.measure.explained import explain
    from wyr_batch.train.measure.faithfulness import SHARES

    from benchmarks.quality.explanations import located, measured, score_all
    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    warnings.filterwarnings("ignore")  # of captum and scikit-learn: they warn for every read
    torch.manual_seed(args.seed)
    model, ranks = load_explanandum(args.explanandum)
    model.requires_grad_(False)
    explainer = load_explainer(args.explainer)
    part = load_reads(read_table(args.data), ranks, args.split)
    reads = part.sample(args.reads, args.seed)
    explain(model, explainer, evaluation_batch(reads, np.arange(8), WINDOW_BP))  # warm up
    scores, seconds, n_done, batches = score_all(model, explainer, reads, WINDOW_BP, args.slow_reads, args.seed)
    aucs = located(model, explainer, part, choose_chimeras(model, part, args.chimeras, seed=args.seed))
    methods = {}
    for name, given in scores.items():
        per_read = seconds[name] / n_done[name]
        methods[name] = {
            "reads": n_done[name],
            "seconds_per_read": round(per_read, 6),
            "seconds_per_read_and_rank": round(per_read / len(ranks), 6),
            "times_the_explainer": round(per_read / (seconds["explainer"] / n_done["explainer"]), 1),
            **measured(model, batches, given),
        }
        if name in aucs:
            methods[name]["chimera_auc"] = aucs[name]
        print(name, json.dumps(methods[name]), flush=True)
    result = {
        "threads": torch.get_num_threads(),
        "split": args.split,
        "ranks": [rank.name for rank in ranks],
        "tokens": int(sum(int(b.valid.sum()) for b in batches)),
        "shares": SHARES,
        "methods": methods,
    }
    kit.write_result(args.output, "rivals", result)


def table(data: Json) -> str:
    methods = data["methods"]
    named = [measure for measure in BEST if measure in methods["explainer"]]
    means = {name: {m: statistics.mean(row[m]) for m in named if m in row} for name, row in methods.items()}
    lines = []
    for name, row in methods.items():
        cost = [f"{row['seconds_per_read']:.4f}", f"{row['times_the_explainer']:,.0f}"]
        measures = [f"{means[name][m]:.3f}" if m in means[name] else "" for m in named]
        lines.append([name.replace("_", " "), f"{row['reads']}", *cost, *measures])
    names = [f"{measure.replace('_', ' ')} ({BEST[measure]})" for measure in named]
    head = ["method", "reads", "s a read, all ranks", "times the Explainer", *names]
    won = []
    for name in ("lime", "smoothed_evidence", "attn_lrp", "random"):
        if name not in means:
            continue
        better = [
            measure.replace("_", " ")
            for measure, value in means[name].items()
            if (means["explainer"][measure] > value) == (BEST[measure] == "higher")
        ]
        won.append(f"{name} in {', '.join(better) or 'nothing'}")
    about = (
        f"Reads of the test part ({data['tokens']:,} tokens), the starter; each rank by its own scores, means over "
        "ranks. What each method is stands at the head of `benchmarks/quality/rivals.py`."
    )
    return f"{about}\n\n{markdown(head, lines)}\n\nThe Explainer is better than {'; than '.join(won)}."


if __name__ == "__main__":
    main()
