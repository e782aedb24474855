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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.errors import UsageError
from wyr_batch.models.checkpoints import load_explainer, save_explainer
from wyr_batch.models.explainer import Explainer, ExplainerConfig
from wyr_batch.models.explanandum import Explanandum

from ..config import ExplainerTraining, LoopConfig
from ..data.batches import StepBatches, evaluation_batch, evaluation_batches
from ..data.labelled import LabelledReads
from ..fit import losses as terms
from ..measure.explained import check_pair, explain, first_classes
from ..places import begin
from .loop import is_first_process, train
from .trained_explainer import TrainedExplainer, output_layer
from .warmstart import WarmStartLoss


class ExplainerLoss:
    """The loss of a batch, term by term."""

    def __init__(self, explanandum: Explanandum, config: ExplainerTraining, bf16: bool) -> None:
        self.explanandum = explanandum.eval().requires_grad_(False)
        self.config = config
        self.bf16 = bf16
        if config.compile:
            # Written out, attention's backward pass is several times faster on a CPU than the flash kernel's.
            encoder = explanandum.encoder
            encoder.explicit_attention = not torch.cuda.is_available()
            encoder.encode = torch.compile(encoder.encode, dynamic=True)  # type: ignore[method-assign]

    def _classify(self, embedded: Tensor, valid: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(embedded.device.type, torch.bfloat16, enabled=self.bf16):
            return self.explanandum.classify(embedded, valid, mask).float()

    def __call__(self, trained: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the named terms, each already multiplied by its lambda.

        Args:
            trained: gives features, see `TrainedExplainer`.
            batch: input_ids int64 [B, T], labels int64 [B, R].
        """
        config, model = self.config, self.explanandum
        input_ids = batch["input_ids"]
        valid = model.valid(input_ids)
        with torch.no_grad():
            embedded = model.embed(input_ids)
            targets = batch["labels"]
            if config.targets == "predicted":
                targets = model.top_classes(self._classify(embedded, valid))
        has_class = targets >= 0
        classes = targets.clamp(min=0) + first_classes(model).to(targets.device)  # [B, R]
        head = output_layer(trained)
        own, other = _masks(head, trained(input_ids, valid), classes, has_class, valid, config.lambda_other)
        target = own.amax(dim=1)
        kept = self._classify(embedded, valid, target) * config.sharpness
        hidden = self._classify(embedded, valid, (1 - target) * valid) * config.complement_sharpness
        if config.complement == "call":
            complement = terms.call_loss(hidden, targets, model.slices)
        else:
            complement = terms.entropy_loss(hidden, model.slices, config.entropy_scale)
        a, b = config.area_least, config.area_most
        area = terms.area_loss(target, other * config.lambda_other, own, has_class, valid, a, b)
        return {
            "classification": terms.classification_loss(kept, targets, model.slices, config.rank_weights),
            "entropy": config.lambda_entropy * complement,
            "area": config.lambda_area * area,
            "variation": config.lambda_variation * terms.variation_loss(target, other * config.lambda_other, valid),
        }


def _masks(
    head: nn.Linear, features: Tensor, classes: Tensor, has_class: Tensor, valid: Tensor, lambda_other: float
) -> tuple[Tensor, Tensor]:
    """Return the masks of the explained classes [B, R, T] and the maximum over all other classes [B, T].

    The maximum is taken of the logits and the sigmoid of what is left, so only [B, T, C] logits are ever held; with
    lambda_other 0 not even they, only the rows of the explained classes.
    """
    if not lambda_other:
        logits = head.weight[classes] @ features.transpose(1, 2) + head.bias[classes].unsqueeze(-1)
        own = torch.sigmoid(logits) * (has_class.unsqueeze(-1) & valid.unsqueeze(1))
        return own, own.new_zeros(own.shape[0], own.shape[2])
    logits = head(features)  # [B, T, C]
    own = logits.gather(2, classes.unsqueeze(1).expand(-1, logits.shape[1], -1)).transpose(1, 2)
    own = torch.sigmoid(own) * (has_class.unsqueeze(-1) & valid.unsqueeze(1))
    is_own = torch.zeros(logits.shape[0], logits.shape[2], dtype=torch.bool, device=logits.device)
    is_own = is_own.scatter(1, classes, has_class)
    other = torch.sigmoid(logits.masked_fill(is_own.unsqueeze(1), -torch.inf).amax(dim=2)) * valid
    return own, other


@torch.no_grad()
def evaluate_explainer(loss: ExplainerLoss, trained: TrainedExplainer, reads: LabelledReads) -> dict[str, float]:
    """Return the loss, and per rank how often the masked and the inverted read keep the plain call."""
    model, window_bp = loss.explanandum, loss.config.window_bp
    sums: dict[str, float] = {}
    for rows in evaluation_batches(reads, window_bp):
        batch = evaluation_batch(reads, rows, window_bp)
        measured = {name: float(value) * len(rows) for name, value in loss(trained, vars(batch)).items()}
        found = explain(model, trained.explainer, batch)
        mask, valid = found.mask(), found.valid
        kept = model.top_classes(model.classify(found.embedded, valid, mask))
        left = model.top_classes(model.classify(found.embedded, valid, (1 - mask) * valid))
        measured["mask_mean"] = float((mask.sum(1) / valid.sum(1)).sum())
        measured["mask_open"] = float((((mask >= 0.5) & valid).sum(1) / valid.sum(1)).sum())
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
        raise UsageError("--start-from", "--warm-start-steps as well", "one of the two")
    torch.manual_seed(loop.seed)
    explainer = Explainer(ExplainerConfig(num_classes=sum(explanandum.n_classes)))
    if start_from:
        explainer = load_explainer(start_from)
        check_pair(explanandum, explainer, str(start_from))
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
