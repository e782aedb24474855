"""What a step of the Explainer's training costs, and what makes it cheaper: precision, attention written out, compiled.

    python -m benchmarks.speed.step markers.parquet -o benchmarks/results/step.json

The starter's classifier, batches of 48 reads, the same 16 batches each time; the fastest of three rounds. The first
round (compilation) does not count.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from benchmarks import kit
from benchmarks.tables import Json, markdown
from wyr_batch.bundle import starter_path

N_BATCHES, BATCH_READS, ROUNDS = 16, 48, 3
WAYS = {  # attention written out, compiled, bfloat16
    "float32": (False, False, False),
    "bfloat16": (False, False, True),
    "bfloat16, attention written out": (True, False, True),
    "bfloat16, attention written out, compiled": (True, True, True),
}


def best_s(function: Callable[[], None]) -> float:
    """Return the fastest round in s a batch."""
    return round(min(timing.wall_s for timing in kit.repeated(function, ROUNDS)) / N_BATCHES, 4)


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("data", type=Path, help="what wyr-batch train prepare wrote")
    args = parser.parse_args()
    import torch
    from wyr_batch.train.config import ExplainerTraining
    from wyr_batch.train.data.batches import StepBatches
    from wyr_batch.train.data.labelled import load_reads, read_table
    from wyr_batch.train.fit.explainer_loss import ExplainerLoss
    from wyr_batch.train.fit.trained_explainer import TrainedExplainer

    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    checkpoint = starter_path() / "checkpoint"
    model, ranks = load_explanandum(checkpoint / "explanandum")
    reads = load_reads(read_table(args.data), ranks, "train", 0.5)
    made = StepBatches(reads, N_BATCHES, batch_reads=BATCH_READS, full_share=0.3)
    batches = [vars(made[i]) for i in range(N_BATCHES)]
    trained = TrainedExplainer(load_explainer(checkpoint / "explainer").train())
    seconds: dict[str, float] = {}
    for name, (explicit, compiled, bf16) in WAYS.items():
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
        "threads": torch.get_num_threads(),
        "batch_tokens": [int(batch["input_ids"].shape[1]) for batch in batches],
        "seconds_per_step": seconds,
    }
    kit.write_result(args.output, "step", result)


def table(data: Json) -> str:
    lines = [[name, f"{seconds:.3f}"] for name, seconds in data["seconds_per_step"].items()]
    return f"The starter, batches of 48 reads, fastest of three rounds.\n\n{markdown(['', 's a step'], lines)}"


if __name__ == "__main__":
    main()
