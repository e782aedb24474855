"""Train an Explainer against a frozen Explanandum, with the paper's four loss terms.

The classes explained are by default those that the Explanandum itself calls on the plain read, one per rank: that
is what a mask is asked about when it is used. (`targets="labels"` takes the true labels, as the paper does, where
classifier and labels hardly differ; a rank without a label is then left out.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.models.checkpoints import save_explainer
from wyr_batch.models.explainer import Explainer, ExplainerConfig
from wyr_batch.models.explanandum import Explanandum

from . import losses as terms
from .data import LabelledReads, StepBatches, evaluation_batch, evaluation_batches
from .loop import LoopConfig, train

TARGETS = ("predicted", "labels")


@dataclass(frozen=True)
class ExplainerTraining:
    """What to train for; the paper's batch of 48 and lambdas of 1.

    a and b bound the share of a read that one class's mask may open without a penalty. The paper does not give its
    values; 0.05 and 0.3 are those of Stalder et al. for images.
    """

    lambda_entropy: float = 1.0
    lambda_area: float = 1.0
    lambda_variation: float = 1.0
    area_least: float = 0.05
    area_most: float = 0.3
    entropy_scale: str = "classes"
    targets: str = "predicted"
    batch_reads: int = 48
    window_bp: int = 1500
    full_share: float = 0.5
    null_leaf_weight: float = 8.0
    compile: bool = False


class TrainedExplainer(nn.Module):
    """Holds the Explainer while it trains (Trainer takes a `config` attribute for one of transformers' own)."""

    def __init__(self, explainer: Explainer) -> None:
        super().__init__()
        self.explainer = explainer

    def forward(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits [B, T, C]."""
        return self.explainer.logits(input_ids, valid)


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
        self.first_class = torch.tensor([s.start for s in explanandum.slices])

    def _classify(self, embedded: Tensor, valid: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(embedded.device.type, torch.bfloat16, enabled=self.bf16):
            return self.explanandum.classify(embedded, valid, mask).float()

    def __call__(self, explainer: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the named terms, each already multiplied by its lambda.

        Args:
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
        masks = torch.sigmoid(explainer(input_ids, valid)) * valid.unsqueeze(-1)  # [B, T, C]
        classes = targets.clamp(min=0) + self.first_class.to(targets.device)  # [B, R]
        own = masks.gather(2, classes.unsqueeze(1).expand(-1, masks.shape[1], -1)).transpose(1, 2)  # [B, R, T]
        own = own * has_class.unsqueeze(-1)
        target = own.amax(dim=1)
        is_own = torch.zeros(masks.shape[0], masks.shape[2], dtype=torch.bool, device=masks.device)
        is_own = is_own.scatter(1, classes, has_class)
        other = masks.masked_fill(is_own.unsqueeze(1), 0.0).amax(dim=2)
        kept = self._classify(embedded, valid, target)
        hidden = self._classify(embedded, valid, (1 - target) * valid)
        a, b = config.area_least, config.area_most
        return {
            "classification": terms.classification_loss(kept, targets, model.slices),
            "entropy": config.lambda_entropy * terms.entropy_loss(hidden, model.slices, config.entropy_scale),
            "area": config.lambda_area * terms.area_loss(target, other, own, has_class, valid, a, b),
            "variation": config.lambda_variation * terms.variation_loss(target, other, valid),
        }


@torch.no_grad()
def evaluate_explainer(loss: ExplainerLoss, explainer: Explainer, reads: LabelledReads) -> dict[str, float]:
    """Return the loss, and per rank how often the masked and the inverted read keep the plain call."""
    model, window_bp = loss.explanandum, loss.config.window_bp
    sums: dict[str, float] = {}
    for rows in evaluation_batches(reads, window_bp):
        batch = evaluation_batch(reads, rows, window_bp)
        for name, value in loss(explainer, vars(batch)).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
        valid = model.valid(batch.input_ids)
        embedded = model.embed(batch.input_ids)
        plain = model.top_classes(model.classify(embedded, valid))
        own = explainer.class_logits(batch.input_ids, valid, plain + loss.first_class)
        mask = torch.sigmoid(own).amax(dim=1) * valid
        kept = model.top_classes(model.classify(embedded, valid, mask))
        left = model.top_classes(model.classify(embedded, valid, (1 - mask) * valid))
        sums["mask_mean"] = sums.get("mask_mean", 0.0) + float((mask.sum(1) / valid.sum(1)).sum())
        open_share = ((mask >= 0.5) & valid).sum(1) / valid.sum(1)
        sums["mask_open"] = sums.get("mask_open", 0.0) + float(open_share.sum())
        for r in range(plain.shape[1]):
            for name, other in ((f"kept_{r}", kept), (f"left_{r}", left)):
                sums[name] = sums.get(name, 0.0) + float((other[:, r] == plain[:, r]).sum())
    means = {name: value / len(reads) for name, value in sums.items()}
    total = sum(means[name] for name in ("classification", "entropy", "area", "variation"))
    return {"loss": total, **means}


def train_explainer(
    explanandum: Explanandum,
    training: LabelledReads,
    validation: LabelledReads,
    folder: Path,
    config: ExplainerTraining,
    loop: LoopConfig,
    *,
    resume: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Explainer:
    """Train an Explainer and write it to `folder`. Returns: the one with the lowest validation loss."""
    torch.manual_seed(loop.seed)
    explainer = Explainer(ExplainerConfig(num_classes=sum(explanandum.n_classes)))
    batches = StepBatches(
        training,
        loop.steps,
        batch_reads=config.batch_reads,
        window_bp=config.window_bp,
        full_share=config.full_share,
        null_leaf_weight=config.null_leaf_weight,
        seed=loop.seed + 1,
    )
    loss = ExplainerLoss(explanandum, config, loop.bf16)

    def evaluate(model: nn.Module) -> dict[str, float]:
        return evaluate_explainer(loss, model.explainer, validation)

    done = train(TrainedExplainer(explainer), batches, loss, evaluate, folder, loop, resume, autocast=False)
    save_explainer(explainer.eval(), folder, {"training": {**(provenance or {}), **asdict(config), **done}})
    return explainer
