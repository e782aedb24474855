"""What an Explainer's training minimises: the paper's four loss terms, and what goes beyond it; see explainer.py."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wyr_batch.models.explainer import PlainPass
from wyr_batch.models.explanandum import Explanandum

from ..config import ExplainerTraining
from ..measure.explained import first_classes, own_tokens
from . import losses as terms


class ExplainerLoss:
    """The loss of a batch, term by term."""

    def __init__(self, explanandum: Explanandum, config: ExplainerTraining, bf16: bool) -> None:
        self.explanandum = explanandum.eval().requires_grad_(False)
        self.config = config
        self.bf16 = bf16
        if config.compile:
            # Written out, attention's backward pass is several times faster on a CPU than the flash kernel's.
            explanandum.write_out_attention(not torch.cuda.is_available())
            explanandum.compile_encoder()

    def _classify(self, embedded: Tensor, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(embedded.device.type, torch.bfloat16, enabled=self.bf16):
            return self.explanandum.classify(embedded, input_ids, mask).float()

    def __call__(self, trained: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the named terms, each already multiplied by its lambda.

        Args:
            trained: gives mask logits, see `TrainedExplainer`.
            batch: tensors of a `LabelledBatch`.
        """
        config, model = self.config, self.explanandum
        input_ids = batch["input_ids"]
        valid = model.valid(input_ids)
        embedded, plain = self._plain(input_ids, valid)
        inside = batch["inside"]
        is_chimera = (~inside).any(dim=1)
        targets = batch["labels"].clone()
        if config.targets == "predicted":
            targets = torch.where(is_chimera.unsqueeze(1), targets, model.top_classes(plain.logits))
        if is_chimera.any():
            targets[is_chimera] = self._seen(plain, embedded, inside, targets, is_chimera)
        own, other = self._masks(trained, plain, targets)
        counted = own_tokens(model, input_ids)
        joined = model.joined_mask(own, targets)
        target = model.rank_masks(input_ids, joined.unsqueeze(1)).squeeze(1)
        kept = self._classify(embedded, input_ids, target) * config.sharpness
        hidden = self._classify(embedded, input_ids, model.complement(input_ids, target)) * config.complement_sharpness
        if config.complement == "call":
            complement = terms.call_loss(hidden, targets, model.slices, config.complement_rank_weights)
        else:
            complement = terms.entropy_loss(hidden, model.slices, config.entropy_scale, config.complement_rank_weights)
        if config.target_area:
            area = terms.target_area_loss(target[~is_chimera], counted[~is_chimera], config.target_area)
        else:
            a, b = config.area_least, config.area_most
            area = terms.area_loss(target, other * config.weight_of_others, own, targets >= 0, counted, a, b)
        found = {
            "classification": terms.classification_loss(kept, targets, model.slices, config.rank_weights),
            "entropy": config.lambda_entropy * complement,
            "area": config.lambda_area * area,
            "variation": config.lambda_variation
            * terms.variation_loss(target, other * config.weight_of_others, counted),
        }
        if config.lambda_outside:
            outside = terms.outside_loss(own, inside, targets, batch["other_labels"], counted)
            found["outside"] = config.lambda_outside * outside
        return found

    @torch.no_grad()
    def _plain(self, input_ids: Tensor, valid: Tensor) -> tuple[Tensor, PlainPass]:
        """Return the embeddings [B, T, D] and what the classifier makes of the plain reads."""
        embedded = self.explanandum.embed(input_ids)
        with torch.autocast(embedded.device.type, torch.bfloat16, enabled=self.bf16):
            hidden, logits = self.explanandum.read(embedded, input_ids)
        return embedded, PlainPass(input_ids, valid, hidden.float(), logits.float())

    @torch.no_grad()
    def _seen(self, plain: PlainPass, embedded: Tensor, inside: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Return the targets of some rows, -1 where the classifier does not call them with all else hidden.

        A mask cannot find what the classifier does not see.
        """
        kept = (inside & plain.valid)[rows].to(embedded.dtype)
        called = self.explanandum.top_classes(self._classify(embedded[rows], plain.input_ids[rows], kept))
        return torch.where(called == targets[rows], called, -1)

    def _masks(self, trained: nn.Module, plain: PlainPass, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks of the explained classes [B, R, T] and the maximum over all other classes [B, T].

        The maximum is taken of the logits and the sigmoid of what is left, so only [B, C, T] logits are ever held; with
        weight 0 not even they, only those of the explained classes.

        Args:
            targets: int64 [B, R], class within the rank, -1 where there is none.
        """
        has_class = targets >= 0
        classes = targets.clamp(min=0) + first_classes(self.explanandum).to(targets.device)  # [B, R]
        counted = has_class.unsqueeze(-1) & plain.valid.unsqueeze(1)
        if not self.config.weight_of_others:
            own = torch.sigmoid(trained(self.explanandum, plain, classes)) * counted
            return own, own.new_zeros(own.shape[0], own.shape[2])
        logits = trained(self.explanandum, plain, None)  # [B, C, T]
        own = torch.sigmoid(logits.gather(1, classes.unsqueeze(2).expand(-1, -1, logits.shape[2]))) * counted
        is_own = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device).scatter(1, classes, has_class)
        other = torch.sigmoid(logits.masked_fill(is_own.unsqueeze(2), -torch.inf).amax(dim=1)) * plain.valid
        return own, other
