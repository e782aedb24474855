"""The Explanandum: the frozen classifier that is explained; the contract that every family of models keeps.

    ids -> embed -> encode -> pool -> logits          a family writes these (models/families/)
    ids, mask -> the same, with the mask applied      written once, here

A mask is applied where the paper applies it (figure 3): to the token embeddings and, with mean pooling, to the final
hidden states as well. The mean divides by the number of tokens, not by the sum of the mask, so a mask of zeros leaves
the biases of the heads alone. Where a family normalises embeddings before anything else sees them, a mask before that
would do nothing; there `embed` returns what has been normalised (`mask_site`).

A classifier of several labels at once is a rank for each label with the classes no and yes, whose logits are 0 and the
label's: a softmax over them is the sigmoid, and every rule for ranks holds as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from wyr_batch.models.numbers import full_precision
from wyr_batch.ranks import rank_slices
from wyr_batch.vocabulary import Vocabulary

POOLINGS = ("mean", "cls")
EMBEDDINGS, NORMALISED = "embeddings", "normalised embeddings"


class Explanandum(nn.Module):
    """Token ids to one logit per class, the classes of all ranks concatenated in rank order.

    Attributes:
        family: what bundle.json calls it; input: what it classifies, 'reads', 'proteins' or 'text'.
        vocabulary: its tokens, as bundle.json has them.
        mask_site: what the mask scales, `EMBEDDINGS` or `NORMALISED`.
        hidden_size: width D of hidden states; vocab_size: token ids; pad_id: of padding; max_tokens: the longest row.
        multi_label: each rank is a label that is there or not.
    """

    family: ClassVar[str]
    input: str = "reads"
    mask_site: str = EMBEDDINGS
    hidden_size: int
    vocab_size: int
    pad_id: int
    max_tokens: int
    multi_label: bool = False

    def __init__(self, n_classes: Sequence[int], pooling: str = "mean") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}.")
        self.n_classes = tuple(n_classes)
        self.slices = rank_slices(self.n_classes)
        self.pooling = pooling

    # What a family writes.

    @property
    def vocabulary(self) -> Vocabulary:
        raise NotImplementedError

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return what the mask scales, [B, T, D], 0 at padding.

        Args:
            input_ids: int32 or int64 [B, T], right-padded.
        """
        raise NotImplementedError

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        """Return the final hidden states [B, T, D]; what stands at padding means nothing.

        Args:
            embedded: float [B, T, D], from `embed`, masked or not.
            input_ids: int [B, T]; say where padding is, and which text of a pair a token is of, never which token.
        """
        raise NotImplementedError

    def logits(self, pooled: Tensor) -> Tensor:
        """Return the logits of every class, float32 [B, C], of pooled vectors [B, D]."""
        raise NotImplementedError

    def head_rows(self, rank: int) -> Tensor:
        """Return along which direction of a hidden state each class of a rank lies, float [K, D].

        Exact for linear heads; a family with others gives the product of their matrices.
        """
        raise NotImplementedError

    def special(self, input_ids: Tensor) -> Tensor | None:
        """Return bool [B, T], True at tokens whose mask is always 1, for they say nothing of the input; None: none."""
        return None

    def halve(self, dtype: torch.dtype) -> None:
        """Turn the encoder's products to half precision, in place; what goes in and comes out stays float32."""
        raise NotImplementedError

    def write_out_attention(self, on: bool = True) -> None:
        """Compute attention as products and a softmax, which every ONNX runtime takes, or as torch's own kernel."""

    def layers(self) -> Sequence[nn.Module]:
        """Return the encoder's layers where they differ in weights alone: an export traces the first for all of them.

        Each is called once a pass, and makes of hidden states, its first tensor, others of the same shape.
        """
        return ()

    def compile_encoder(self) -> None:
        """Have torch compile the encoder, for training."""

    # What every family has.

    def valid(self, input_ids: Tensor) -> Tensor:
        """Return bool [B, T], True at tokens."""
        return input_ids != self.pad_id

    def classify(self, embedded: Tensor, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits of every class.

        Args:
            embedded: float [B, T, D] from `embed`.
            input_ids: int [B, T], of which it is the embedding.
            mask: float32 [B, T] in [0, 1], 1 keeps a token; None is the plain read.
        Returns: float32 [B, C].
        """
        if mask is None:
            return self.read(embedded, input_ids)[1]
        # The product stays float32: a tiny mask times an embedding, then layer-normed, loses its direction
        # in half precision.
        scaled = full_precision(embedded) * mask.unsqueeze(-1)
        hidden = self.encode(scaled.to(embedded.dtype), input_ids)
        return self.logits(self.pool(hidden, input_ids, mask))

    def read(self, embedded: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the final hidden states [B, T, D] and the logits, float32 [B, C], of the plain read."""
        hidden = self.encode(embedded, input_ids)
        return hidden, self.logits(self.pool(hidden, input_ids, None))

    def pool(self, hidden: Tensor, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Return one float32 vector a read, [B, D]."""
        if self.pooling == "cls":
            return full_precision(hidden[:, 0])
        hidden = full_precision(hidden)
        kept = self.valid(input_ids).to(hidden.dtype)
        weight = kept if mask is None else mask * kept
        total = weight.unsqueeze(1) @ hidden  # [B, 1, D]
        return total.squeeze(1) / kept.sum(dim=1, keepdim=True).clamp(min=1e-9)

    def evidence(self, hidden: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return how much each token's final hidden state speaks for a class of each rank.

        The class's row of the head less a rival's: half the other classes by their probability, half all alike. With
        mean pooling and linear heads the logits are the mean of exactly these numbers. A head that reads `<cls>` alone
        was never taught what the other tokens' hidden states mean along its rows, so there they are a guess (a "logit
        lens").

        Args:
            hidden: float [B, T, D]; logits: float [B, C] of the plain read.
            targets: int64 [B, N], class within its rank; N a multiple of R, in rank order over and over.
        Returns: float32 [B, N, T].
        """
        scores = []
        for place, target in enumerate(targets.unbind(dim=1)):
            rank = place % len(self.slices)
            rows = self.head_rows(rank)  # [K, D]
            classes = torch.arange(rows.shape[0], device=target.device)
            is_target = target.unsqueeze(1) == classes  # [B, K]
            scored = full_precision(logits[:, self.slices[rank]])
            # Without the target from the start: what a sure call leaves to the others is too little to divide by.
            among = torch.where(is_target, torch.finfo(scored.dtype).min, scored)
            others = torch.where(is_target, 0.0, torch.softmax(among, dim=-1))
            rival = (0.5 * others + 0.5 / rows.shape[0]) @ rows  # [B, D]
            row = nn.functional.embedding(target, rows) - rival
            scores.append((full_precision(hidden) @ row.unsqueeze(-1)).squeeze(-1))
        return torch.stack(scores, dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return a softmax per rank, float32 [B, C]."""
        return torch.cat([torch.softmax(full_precision(logits[:, s]), dim=-1) for s in self.slices], dim=-1)

    def top_classes(self, logits: Tensor) -> Tensor:
        """Return the predicted class of each rank, index within the rank, int64 [B, R]."""
        return torch.stack([logits[:, s].argmax(dim=-1) for s in self.slices], dim=1)

    def rank_masks(self, input_ids: Tensor, masks: Tensor) -> Tensor:
        """Return masks as they are used: 0 at padding, 1 at special tokens.

        Args:
            masks: float [B, N, T] in [0, 1].
        """
        special = self.special(input_ids)
        if special is not None:
            masks = torch.where(special.unsqueeze(1), 1.0, masks)
        return masks * self.valid(input_ids).unsqueeze(1)

    def complement(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return the mask that keeps what a mask [B, T] hides, as it is used."""
        return self.rank_masks(input_ids, (1 - mask).unsqueeze(1)).squeeze(1)

    def content(self, input_ids: Tensor) -> Tensor:
        """Return bool [B, T], True at tokens that stand for a piece of the input: what measures of masks count."""
        valid, special = self.valid(input_ids), self.special(input_ids)
        return valid if special is None else valid & ~special

    def joined_mask(self, masks: Tensor, explained: Tensor) -> Tensor:
        """Return the mask of all ranks together, [B, T]: the maximum over ranks, of several labels over those present.

        Args:
            masks: float [B, R, T]; explained: int64 [B, R], the class explained, within its rank.
        """
        if self.multi_label:
            present = explained == 1
            counted = present | ~present.any(dim=1, keepdim=True)  # where no label is there, all count
            masks = masks * counted.unsqueeze(2)
        return masks.amax(dim=1)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits [B, C] of token ids int [B, T], masked by float32 [B, T] if given."""
        return self.classify(self.embed(input_ids), input_ids, mask)
