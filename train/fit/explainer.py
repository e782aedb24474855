"""Train an Explainer against a frozen Explanandum, with the paper's four loss terms.

The classes explained are by default those that the Explanandum itself calls on the plain read, one per rank: that
is what a mask is asked about when it is used. (`targets="labels"` takes the true labels, as the paper does, where
classifier and labels hardly differ; a rank without a label is then left out.)

The defaults are the paper's. What goes beyond it, each off by default:

    sharpness          the classifier's logits are multiplied by it inside the loss, so that an unsure classifier's
                       call is kept rather than made surer (else masks open wide, for that makes every call surer)
    rank_weights       a rank whose calls flip first (the finest, as a rule) can count more
    complement="call"  the complement should not speak for the explained class, whatever else it says
    warm_start_steps   the masks first learn where a token's own hidden state speaks for the explained class
    chimera_share      reads joined of pieces of two classes, asked for one; lambda_outside closes the other piece
    target_area        the mean mask is held there, in place of the paper's area term
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from wyr_batch.errors import UsageError
from wyr_batch.models.checkpoints import load_explainer, save_explainer
from wyr_batch.models.explainer import Explainer, check_pair
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.families.heads import LinearHeads
from wyr_batch.models.lstm import LstmConfig, LstmExplainer
from wyr_batch.models.readout import ReadoutConfig, ReadoutExplainer

from ..config import ExplainerTraining, LoopConfig
from ..data.batches import StepBatches, evaluation_batch, evaluation_batches
from ..data.labelled import LabelledReads
from ..measure.explained import explain
from ..places import begin
from .explainer_loss import ExplainerLoss
from .loop import is_first_process, train
from .trained_explainer import TrainedExplainer
from .warmstart import WarmStartLoss


@torch.no_grad()
def evaluate_explainer(loss: ExplainerLoss, trained: TrainedExplainer, reads: LabelledReads) -> dict[str, float]:
    """Return the loss, and per rank how often the masked and the inverted read keep the plain call."""
    model, window_bp = loss.explanandum, loss.config.window_bp
    sums: dict[str, float] = {}
    for rows in evaluation_batches(reads, window_bp):
        batch = evaluation_batch(reads, rows, window_bp)
        measured = {name: float(value) * len(rows) for name, value in loss(trained, vars(batch)).items()}
        found = explain(model, trained.explainer, batch)
        mask, counted = found.mask(), found.counted
        kept = model.top_classes(found.classify(mask))
        left = model.top_classes(found.classify(model.complement(found.input_ids, mask)))
        n_counted = counted.sum(1).clamp(min=1)
        measured["mask_mean"] = float(((mask * counted).sum(1) / n_counted).sum())
        measured["mask_open"] = float((((mask >= 0.5) & counted).sum(1) / n_counted).sum())
        for r in range(found.plain.shape[1]):
            measured[f"kept_{r}"] = float((kept[:, r] == found.plain[:, r]).sum())
            measured[f"left_{r}"] = float((left[:, r] == found.plain[:, r]).sum())
        for name, value in measured.items():
            sums[name] = sums.get(name, 0.0) + value
    means = {name: value / len(reads) for name, value in sums.items()}
    total = sum(means[name] for name in ("classification", "entropy", "area", "variation"))
    return {"loss": total, **means}


def randomise(explanandum: Explanandum, seed: int) -> None:
    """Shuffle the entries of every weight in place: a classifier of the same statistics that has learnt nothing.

    For the sanity check that explanations depend on what was learnt (Adebayo et al., NeurIPS 2018).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in explanandum.parameters():
            shuffled = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
            parameter.copy_(shuffled.view_as(parameter))


def new_explainer(explanandum: Explanandum, kind: str) -> Explainer:
    """Return an untrained Explainer of that kind for a classifier.

    A readout starts from evidence where that is exact, with linear heads on a mean, and learns it elsewhere.
    """
    n_classes = sum(explanandum.n_classes)
    if kind == "lstm":
        return LstmExplainer(LstmConfig(vocab_size=explanandum.vocab_size, num_classes=n_classes))
    return ReadoutExplainer(
        ReadoutConfig(
            hidden_size=explanandum.hidden_size,
            num_ranks=len(explanandum.n_classes),
            num_classes=n_classes,
            evidence_start=explanandum.pooling == "mean" and isinstance(explanandum, LinearHeads),
        )
    )


def train_explainer(
    explanandum: Explanandum,
    training: LabelledReads,
    validation: LabelledReads,
    folder: Path,
    config: ExplainerTraining,
    loop: LoopConfig,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Explainer:
    """Train an Explainer and write it to `folder`.

    Args:
        start_from: an Explainer of the same classes whose weights to begin with.
    Returns: the one with the lowest validation loss.
    """
    config.check_ranks(len(explanandum.n_classes))
    if start_from and config.warm_start_steps:
        raise UsageError("--start-from", "warm_start_steps as well", "one of the two")
    torch.manual_seed(loop.seed)
    explainer = new_explainer(explanandum, config.kind)
    if start_from:
        explainer = load_explainer(start_from)
        check_pair(explanandum, explainer, str(start_from))
        if explainer.kind != config.kind:
            raise UsageError("--start-from", f"an Explainer of the kind {explainer.kind}", config.kind)
    trained = TrainedExplainer(explainer)
    loss = ExplainerLoss(explanandum, config, loop.bf16)

    def batches(stage: LoopConfig, seed: int) -> StepBatches:
        return StepBatches(
            training,
            stage.n_batches,
            batch_reads=config.batch_reads,
            window_bp=config.window_bp,
            full_share=config.full_share,
            null_leaf_weight=config.null_leaf_weight,
            multi_label=explanandum.multi_label,
            chimera_share=config.chimera_share,
            seed=seed,
        )

    def evaluate(model: TrainedExplainer) -> dict[str, float]:
        return evaluate_explainer(loss, model, validation)

    if is_first_process():
        begin(folder, "explainer")
    record: dict[str, Any] = {}
    if steps := config.warm_start_steps:
        first = replace(loop, steps=steps, patience=steps, warmup_steps=min(loop.warmup_steps, steps))
        warm = WarmStartLoss(loss.explanandum, config.warm_start_share, loop.bf16)
        record["warm_start"] = train(
            trained,
            batches(first, loop.seed + 2),
            warm,
            lambda model: warm.evaluate(model, validation, config.window_bp),
            folder / "warm-start",
            first,
            resume,
            autocast=False,
        )
    done = train(trained, batches(loop, loop.seed + 1), loss, evaluate, folder, loop, resume, autocast=False)
    if is_first_process():
        began = {"start_from": start_from.name if start_from else None}
        about = {"training": {**(provenance or {}), **began, **asdict(config), **record, **done}}
        save_explainer(explainer.eval(), folder, about)
    return explainer
