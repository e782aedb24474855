"""Train an Explanandum, from scratch or from an encoder: summed cross-entropies over the ranks, null labels ignored.

Classes are far from balanced. `balance="sampling"`: every finest class is drawn alike and the remaining imbalance is
taken out of the logits during training ("logit adjustment", Menon et al., ICLR 2021), so the trained classifier is
unbiased. "weights": sequences are drawn as they come and each class weighs in the loss as it is rare. "none": neither.

From scratch the residual branches start at zero, so training starts as a mean of layer-normed 6-mer embeddings and
grows from there. A helper head that is thrown away afterwards predicts strand and codon phase of the piece (sequences
are coding strands): knowing the frame makes codon usage visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.checks.files import exists
from wyr_batch.errors import InputError, ModelError
from wyr_batch.models.checkpoints import load_encoder, load_explanandum, read_ranks, save_explanandum
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.ranks import Rank

from ..config import ExplanandumConfig, LoopConfig
from ..data.batches import StepBatches, class_priors, evaluation_batch, evaluation_batches
from ..data.labelled import LabelledReads
from ..measure.metrics import balanced_accuracy
from ..places import begin
from .loop import is_first_process, train

N_FRAMES = 6


class TrainedExplanandum(nn.Module):
    """An Explanandum with its helper head; while training, dropout of pooled features and random hidden tokens.

    Half of the reads have a random share, up to `hide_share`, of their tokens hidden as a mask of zeros hides them, so
    that a masked read is nothing the classifier has never seen (Hase et al., NeurIPS 2021).
    """

    def __init__(self, explanandum: NtExplanandum, config: ExplanandumConfig) -> None:
        super().__init__()
        self.explanandum = explanandum
        encoder = explanandum.encoder
        if config.compile:  # written out, attention's backward pass is faster on a CPU than the flash kernel's
            encoder.explicit_attention = not torch.cuda.is_available()
        self._encode = torch.compile(encoder.encode, dynamic=True) if config.compile else encoder.encode
        self.frame_head = nn.Linear(explanandum.hidden_size, N_FRAMES)
        self.dropout, self.hide_share = config.dropout, config.hide_share

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits [B, C] and frame logits [B, 6]."""
        model = self.explanandum
        valid = model.valid(input_ids)
        embedded, mask = model.embed(input_ids), None
        if self.training and self.hide_share:
            mask = random_mask(valid, self.hide_share)
            embedded = embedded * mask.unsqueeze(-1)
        hidden = self._encode(embedded, valid)
        pooled = F.dropout(model.pool(hidden, input_ids, mask), self.dropout, self.training)
        return model.logits(pooled), self.frame_head(pooled)


def random_mask(valid: Tensor, most: float) -> Tensor:
    """Return float32 [B, T]: 0 at tokens to hide, up to a share of `most` of a read's, in half of the reads."""
    n_rows = len(valid)
    share = torch.rand(n_rows, 1, device=valid.device) * most
    share = share * (torch.rand(n_rows, 1, device=valid.device) < 0.5)
    kept = torch.rand(valid.shape, device=valid.device) >= share
    kept[:, 0] = True
    return (kept & valid).float()


def initialise(model: NtExplanandum) -> None:
    """Start as a mean of layer-normed embeddings: small normal embeddings, residual outputs zero."""
    nn.init.normal_(model.encoder.embeddings.word_embeddings.weight, std=0.1)
    for layer in model.encoder.encoder.layer:
        for name in ("attention.output.dense", "output.dense"):
            dense = cast(nn.Linear, layer.get_submodule(name))
            nn.init.zeros_(dense.weight)
            if dense.bias is not None:
                nn.init.zeros_(dense.bias)


def summed_cross_entropy(
    logits: Tensor, labels: Tensor, slices: Sequence[slice], weights: Tensor | None = None
) -> Tensor:
    """Return the sum over ranks of the mean cross-entropy of the rows with a label of that rank.

    Args:
        logits: float [B, C]; labels: int64 [B, R], -1 where null.
        weights: float [C], what each class weighs; None is all alike.
    """
    total = logits.new_zeros(())
    for r, classes in enumerate(slices):
        known = labels[:, r] >= 0
        if known.any():
            weight = None if weights is None else weights[classes].to(logits.device)
            total = total + F.cross_entropy(logits[known, classes].float(), labels[known, r], weight)
    return total


def evaluate_classifier(model: Explanandum, reads: LabelledReads, window_bp: int) -> tuple[np.ndarray, float]:
    """Return plain probabilities float32 [n, C] of each read's first window, and the mean summed cross-entropy."""
    device = next(model.parameters()).device
    probabilities = np.empty((len(reads), sum(model.n_classes)), np.float32)
    total = 0.0
    for rows in evaluation_batches(reads, window_bp):
        batch = evaluation_batch(reads, rows, window_bp)
        logits = model(batch.input_ids.to(device)).float().cpu()
        probabilities[rows] = model.probabilities(logits).numpy()
        total += float(summed_cross_entropy(logits, batch.labels, model.slices)) * len(rows)
    return probabilities, total / len(reads)


def train_explanandum(
    ranks: Sequence[Rank],
    training: LabelledReads,
    validation: LabelledReads,
    folder: Path,
    config: ExplanandumConfig,
    loop: LoopConfig,
    *,
    resume: bool = False,
    start_from: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Explanandum:
    """Train a classifier and write it to `folder` in the published layout.

    Args:
        start_from: an NT v2 encoder to fine-tune, see `load_encoder`; None starts from random weights. A classifier
            checkpoint of the same ranks and classes goes on with its heads.
    Returns: the model with the best validation loss, in evaluation mode.
    Raises: InputError if a rank has no label in the training part; see `loop.train`.
    """
    for part, reads, advice in (("training", training, ""), ("validation", validation, " Raise --validation-reads.")):
        for rank, labels in zip(ranks, reads.labels.T, strict=True):
            if not (labels >= 0).any():
                raise InputError(f"{part} part", f"no sequence with a {rank.name}", "at least one", advice)
    torch.manual_seed(loop.seed)
    encoder = load_encoder(start_from) if start_from else None
    sizes = encoder.config if encoder else config.encoder()
    explanandum = NtExplanandum(sizes, [len(rank.labels) for rank in ranks], config.pooling)
    if encoder and _same_ranks(start_from, ranks):
        explanandum.load_state_dict(load_explanandum(Path(str(start_from)))[0].state_dict())
    elif encoder:
        explanandum.encoder.load_state_dict(encoder.state_dict())
    else:
        initialise(explanandum)
    batches = StepBatches(
        training,
        loop.n_batches,
        balanced=config.balance == "sampling",
        batch_reads=config.batch_reads,
        window_bp=config.window_bp,
        full_share=config.full_share,
        null_leaf_weight=config.null_leaf_weight,
        seed=loop.seed,
    )
    priors = class_priors(training.labels, batches.weights, explanandum.n_classes).clamp(min=1e-6)
    log_priors = priors.log() if config.balance == "sampling" else torch.zeros_like(priors)
    class_weights = None
    if config.balance == "weights":
        sizes_of_ranks = torch.tensor(explanandum.n_classes)
        class_weights = 1 / (priors * sizes_of_ranks.repeat_interleave(sizes_of_ranks))

    def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, frame_logits = model(batch["input_ids"])
        adjusted = logits.float() + log_priors.to(logits.device)
        labels, slices = batch["labels"], explanandum.slices
        terms = {"classification": summed_cross_entropy(adjusted, labels, slices, class_weights)}
        if config.frame_loss and (batch["frames"] >= 0).any():
            frame = F.cross_entropy(frame_logits.float(), batch["frames"], ignore_index=-1)
            terms["frame"] = config.frame_loss * frame
        return terms

    def evaluate(model: TrainedExplanandum) -> dict[str, float]:
        probabilities, loss = evaluate_classifier(model.explanandum, validation, config.window_bp)
        scores = {
            rank.name: balanced_accuracy(validation.labels[:, r], probabilities[:, s].argmax(axis=1))
            for r, (rank, s) in enumerate(zip(ranks, explanandum.slices, strict=True))
        }
        # The mean over ranks is what is asked for; the cross-entropy of an adjusted model is not comparable.
        return {"loss": 1 - float(np.mean(list(scores.values()))), "cross_entropy": loss, **scores}

    if is_first_process():
        begin(folder, "explanandum")
    trained = TrainedExplanandum(explanandum, config)
    done = train(trained, batches, losses, evaluate, folder, loop, resume)
    record = {"training": {**(provenance or {}), "start_from": start_from, **asdict(config), **done}}
    if is_first_process():
        save_explanandum(explanandum.eval(), ranks, folder, record)
    return explanandum


def _same_ranks(start_from: str | None, ranks: Sequence[Rank]) -> bool:
    folder = Path(start_from or "")
    return exists(folder / "model" / "model.safetensors", ModelError) and list(read_ranks(folder)) == list(ranks)
