"""AttnLRP for any text encoder of transformers, by the rules of attn_lrp.py.

Its layer norms, activations (GELU and others, tanh of a pooler) and attention are exchanged for ones whose gradients
follow the rules. Outputs stay the same. An activation that is no module of the model, such as the tanh in RoBERTa's
head, keeps its own gradient.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import ACT2FN
from transformers.masking_utils import eager_mask

from benchmarks.quality.attn_lrp import half, norm

NAME = "attn_lrp"
ACTIVATIONS = (nn.Tanh, nn.GELU, nn.ReLU, nn.SiLU, *{type(ACT2FN[name]) for name in ("gelu", "gelu_new", "silu")})


class _Norm(nn.Module):
    def __init__(self, inner: nn.LayerNorm) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return norm(x, self.inner)


class _Activation(nn.Module):
    """out / in counts as a constant."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        safe = torch.where(x == 0, 1.0, x)
        return x * torch.where(x == 0, 0.0, self.inner(x) / safe).detach()


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    scores = half(query @ key.transpose(2, 3)) * scaling
    weights = torch.softmax(scores if attention_mask is None else scores + attention_mask, dim=-1)
    return half(weights @ value).transpose(1, 2).contiguous(), None


def with_rules(model: Any) -> Any:
    """Return a copy of a model whose gradients follow the rules."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    ruled = copy.deepcopy(model).eval()
    ruled.set_attn_implementation(NAME)
    for parent in list(ruled.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(parent, name, _Norm(child))
            elif isinstance(child, ACTIVATIONS):
                setattr(parent, name, _Activation(child))
    return ruled


def relevance(ruled: Any, input_ids: Tensor, target: int) -> Tensor:
    """Return each token's share in the margin of a class over its rivals, float [T], special tokens included.

    Args:
        ruled: what `with_rules` gives; input_ids: int64 [T].
    """
    with torch.enable_grad():
        leaf = ruled.get_input_embeddings()(input_ids.unsqueeze(0)).detach().requires_grad_()
        margin(ruled(inputs_embeds=leaf).logits[0], target).backward()
        assert leaf.grad is not None
        return (leaf.detach() * leaf.grad)[0].sum(dim=-1)


def margin(logits: Tensor, target: int) -> Tensor:
    """Return a class's logit less those of the others, weighed by their probabilities as constants."""
    others = torch.arange(len(logits)) != target
    rivals = torch.softmax(logits[others], dim=0).detach()
    return logits[target] - (rivals * logits[others]).sum()
