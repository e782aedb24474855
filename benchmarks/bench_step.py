"""What a step of the Explainer's training costs, and what makes it cheaper: precision, attention written out, compiled.

    python benchmarks/bench_step.py markers.parquet -o benchmarks/results/step.json

The starter's classifier, batches of 48 reads, the same 16 batches each time; the first round (compilation) does not
count.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import environment
from wyr_batch.train.data.batches import StepBatches
from wyr_batch.train.data.labelled import load_reads, read_table
from wyr_batch.train.fit.explainer import ExplainerLoss, ExplainerTraining, TrainedExplainer

from wyr_batch.models.checkpoints import load_explainer, load_explanandum

STARTER = Path(__file__).parent.parent / "wyr_batch" / "starter" / "checkpoint"
N_BATCHES, ROUNDS = 16, 3


def best_s(function: Callable[[], None]) -> float:
    """Return the fastest of some rounds in s a batch, after one that is not counted."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function()
        seconds.append((time.perf_counter() - start) / N_BATCHES)
    return round(min(seconds[1:]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="what wyr-batch train prepare wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    model, ranks = load_explanandum(STARTER / "explanandum")
    reads = load_reads(read_table(args.data), ranks, "train", 0.5)
    made = StepBatches(reads, N_BATCHES, batch_reads=48, full_share=0.3)
    batches = [vars(made[i]) for i in range(N_BATCHES)]
    trained = TrainedExplainer(load_explainer(STARTER / "explainer").train())
    seconds: dict[str, float] = {}
    for name, explicit, compiled, bf16 in (
        ("float32", False, False, False),
        ("bfloat16", False, False, True),
        ("bfloat16, attention written out", True, False, True),
        ("bfloat16, attention written out, compiled", True, True, True),
    ):
        classifier = copy.deepcopy(model)
        loss = ExplainerLoss(classifier, ExplainerTraining(compile=compiled), bf16)
        classifier.encoder.explicit_attention = explicit

        def step(loss: ExplainerLoss = loss) -> None:
            for batch in batches:
                torch.stack(list(loss(trained, batch).values())).sum().backward()

        seconds[name] = best_s(step)
        print(name, seconds[name], flush=True)

    def explainer_alone() -> None:
        for batch in batches:
            trained(batch["input_ids"], model.valid(batch["input_ids"])).sum().backward()

    seconds["of it the Explainer, forward and backward"] = best_s(explainer_alone)
    result = {
        "benchmark": "step",
        **environment(),
        "threads": torch.get_num_threads(),
        "batch_tokens": [int(batch["input_ids"].shape[1]) for batch in batches],
        "seconds_per_step": seconds,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
