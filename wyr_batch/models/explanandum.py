"""The Explanandum: the frozen read classifier that is explained.

An NT v2 encoder, one pooled vector a read, one linear head a rank. A mask is applied where the paper applies it
(figure 3): to the token embeddings and, with mean pooling, to the final hidden states as well. The mean divides
by the number of tokens, not by the sum of the mask, so a mask of zeros leaves the biases of the heads alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from wyr_batch.models.encoder import Encoder, EncoderConfig, full_precision
from wyr_batch.ranks import rank_slices

POOLINGS = ("mean", "cls")


class _BaseModel(nn.Module):
    """Holds the encoder under the name `esm`, as the published checkpoints do."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.esm = Encoder(config)


class Explanandum(nn.Module):
    """Token ids to one logit per class, the classes of all ranks concatenated in rank order."""

    def __init__(self, config: EncoderConfig, n_classes: Sequence[int], pooling: str = "mean") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}.")
        self.config = config
        self.n_classes = tuple(n_classes)
        self.slices = rank_slices(self.n_classes)
        self.pooling = pooling
        self.base_model = _BaseModel(config)
        self.classifiers = nn.ModuleList(nn.Linear(config.hidden_size, n) for n in n_classes)

    @property
    def encoder(self) -> Encoder:
        return self.base_model.esm

    def valid(self, input_ids: Tensor) -> Tensor:
        """Return bool [B, T], True at tokens."""
        return input_ids != self.config.pad_token_id

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return token embeddings [B, T, D], 0 at padding."""
        return self.encoder.embed(input_ids)

    def classify(self, embedded: Tensor, valid: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits of every class.

        Args:
            embedded: float [B, T, D] from `embed`.
            valid: bool [B, T], True at tokens.
            mask: float32 [B, T] in [0, 1], 1 keeps a token; None is the plain read.
        Returns: float32 [B, C].
        """
        if mask is None:
            return self.read(embedded, valid)[1]
        # The product stays float32: a tiny mask times an embedding, then layer-normed, loses its direction
        # in half precision.
        scaled = full_precision(embedded) * mask.unsqueeze(-1)
        hidden = self.encoder.encode(scaled.to(embedded.dtype), valid)
        return self.logits(self.pool(hidden, valid, mask))

    def read(self, embedded: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the final hidden states [B, T, D] and the logits, float32 [B, C], of the plain read."""
        hidden = self.encoder.encode(embedded, valid)
        return hidden, self.logits(self.pool(hidden, valid, None))

    def logits(self, pooled: Tensor) -> Tensor:
        """Return the logits of every class, float32 [B, C], of pooled vectors [B, D]."""
        return torch.cat([head(pooled) for head in self.classifiers], dim=-1)

    def pool(self, hidden: Tensor, valid: Tensor, mask: Tensor | None) -> Tensor:
        """Return one float32 vector a read, [B, D]."""
        if self.pooling == "cls":
            return full_precision(hidden[:, 0])
        hidden = full_precision(hidden)
        kept = valid.to(hidden.dtype)
        weight = kept if mask is None else mask * kept
        total = weight.unsqueeze(1) @ hidden  # [B, 1, D]
        return total.squeeze(1) / kept.sum(dim=1, keepdim=True).clamp(min=1e-9)

    def evidence(self, hidden: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return how much each token's final hidden state speaks for a class of each rank.

        The class's row of the head less a rival's: half the other classes by their probability, half all alike. With
        mean pooling the logits are the mean of exactly these numbers. A head that reads `<cls>` alone was never taught
        what the other tokens' hidden states mean along its rows, so there they are a guess (a "logit lens").

        Args:
            hidden: float [B, T, D]; logits: float [B, C] of the plain read.
            targets: int64 [B, N], class within its rank; N a multiple of R, in rank order over and over.
        Returns: float32 [B, N, T].
        """
        scores = []
        for place, target in enumerate(targets.unbind(dim=1)):
            rank = place % len(self.slices)
            weight = cast(nn.Linear, self.classifiers[rank]).weight  # [K, D]
            classes = torch.arange(weight.shape[0], device=target.device)
            is_target = target.unsqueeze(1) == classes  # [B, K]
            probs = torch.softmax(full_precision(logits[:, self.slices[rank]]), dim=-1)
            others = torch.where(is_target, 0.0, probs)
            others = others / others.sum(dim=1, keepdim=True).clamp(min=1e-9)
            rival = (0.5 * others + 0.5 / weight.shape[0]) @ weight  # [B, D]
            row = nn.functional.embedding(target, weight) - rival
            scores.append((full_precision(hidden) @ row.unsqueeze(-1)).squeeze(-1))
        return torch.stack(scores, dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return a softmax per rank, float32 [B, C]."""
        return torch.cat([torch.softmax(full_precision(logits[:, s]), dim=-1) for s in self.slices], dim=-1)

    def top_classes(self, logits: Tensor) -> Tensor:
        """Return the predicted class of each rank, index within the rank, int64 [B, R]."""
        return torch.stack([logits[:, s].argmax(dim=-1) for s in self.slices], dim=1)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits [B, C] of token ids int [B, T], masked by float32 [B, T] if given."""
        return self.classify(self.embed(input_ids), self.valid(input_ids), mask)
