"""A part of the GPU kit: seconds of one step of the Explainer's training, at the published size."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from benchmarks.kit import random_batch
from benchmarks.published_size import CLASSES
from benchmarks.speed.gpu.machine import Machine, need_torch, tried
from benchmarks.speed.gpu.models import loaded

BATCH_READS, EPOCH_READS = 48, 239_391  # the paper's: an epoch took it 20 minutes
WAYS = {  # bfloat16, compiled
    "bfloat16": (True, False),
    "float32": (False, False),
    "bfloat16, compiled": (True, True),
}


def training(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time steps on one batch of full rows, the optimiser's included; no reads are cut or loaded."""
    need_torch()
    models = loaded(machine)[:2]
    for name, (bf16, compiled) in WAYS.items():
        yield name, tried(step, machine, *models, bf16, compiled)


def step(machine: Machine, explanandum: Any, explainer: Any, bf16: bool, compiled: bool) -> dict[str, Any]:
    """Return seconds of a step, the loss it began with, and minutes of an epoch of so many."""
    torch = need_torch()
    from wyr_batch.train.config import ExplainerTraining
    from wyr_batch.train.fit.explainer_loss import ExplainerLoss
    from wyr_batch.train.fit.trained_explainer import TrainedExplainer

    trained = TrainedExplainer(copy.deepcopy(explainer)).to(machine.device).train()
    classifier = copy.deepcopy(explanandum).to(machine.device)
    loss = ExplainerLoss(classifier, ExplainerTraining(compile=compiled and not machine.quick), bf16)
    optimiser = torch.optim.AdamW(trained.parameters(), 1e-4)
    n_rows = 2 if machine.quick else BATCH_READS
    ids = torch.from_numpy(random_batch(n_rows, machine.window_tokens, len(CLASSES))[0]).long().to(machine.device)
    unknown = torch.full((n_rows, len(CLASSES)), -1, device=machine.device)
    batch = {"input_ids": ids, "labels": unknown, "other_labels": unknown, "inside": torch.ones_like(ids).bool()}
    began: list[float] = []

    def one_step() -> None:
        total = torch.stack(list(loss(trained, batch).values())).sum()
        began.append(float(total.detach()))  # waits for the device, as a training that looks at its loss does
        optimiser.zero_grad()
        total.backward()
        optimiser.step()

    seconds = machine.seconds(one_step)
    epoch_min = seconds * EPOCH_READS / BATCH_READS / 60
    return {"seconds_a_step": seconds, "reads": n_rows, "loss": [began[0], began[-1]], "epoch_minutes": epoch_min}
