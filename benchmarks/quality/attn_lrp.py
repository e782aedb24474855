"""AttnLRP: relevance passed back through the classifier by rules that keep its sum, as gradient times input.

    layer norm        its scale counts as a constant                       (identity rule)
    SiLU              out / in counts as a constant                        (identity rule)
    a product of two  each takes half: gate and up, query and key, attention and value     (uniform rule)
    softmax, linear   as their gradient                                    (Taylor decomposition, epsilon rule)

With these rules one backward pass gives each token's share in the logit margin of a class. Written from the rules in
Achtibat et al., "AttnLRP", ICML 2024, section 3 and appendix B.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.models.encoder import padding_bias, rotary_angles, rotate
from wyr_batch.models.explanandum import Explanandum


def half(product: Tensor) -> Tensor:
    """Return a product of two tensors as it is, each of which gets half of the relevance."""
    return 0.5 * product + 0.5 * product.detach()


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Return what a layer norm gives, its scale a constant."""
    centred = x - x.mean(dim=-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + layer.eps).detach()
    return centred * scale * layer.weight + layer.bias


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x).detach()


def _attention(x: Tensor, bias: Tensor, angles: tuple[Tensor, Tensor], attention: Any) -> Tensor:
    shape = (*x.shape[:2], attention.n_heads, attention.head_size)
    query = rotate((attention.query(x) * attention.head_size**-0.5).view(shape).transpose(1, 2), *angles)
    key = rotate(attention.key(x).view(shape).transpose(1, 2), *angles)
    value = attention.value(x).view(shape).transpose(1, 2)
    weights = torch.softmax(half(query @ key.transpose(2, 3)) + bias, dim=-1)
    return half(weights @ value).transpose(1, 2).reshape(x.shape)


def relevance(model: Explanandum, embedded: Tensor, input_ids: Tensor, rank: int, targets: Tensor) -> Tensor:
    """Return each token's share in the explained class's margin over its rivals, float [B, T].

    Args:
        embedded: float [B, T, D]; input_ids: int [B, T]; targets: int64 [B], class within the rank.
    """
    encoder = model.encoder
    with torch.enable_grad():
        leaf = embedded.clone().detach().requires_grad_()
        first: Any = encoder.encoder.layer[0]
        angles = rotary_angles(leaf.shape[1], first.attention.self.rotary_embeddings.inv_freq)
        bias, x = padding_bias(model.valid(input_ids), leaf.dtype), leaf
        layers: list[Any] = list(encoder.encoder.layer)
        for layer in layers:
            mixed = _attention(norm(x, layer.attention.LayerNorm), bias, angles, layer.attention.self)
            x = x + layer.attention.output.dense(mixed)
            gate, up = layer.intermediate.dense(norm(x, layer.LayerNorm)).chunk(2, dim=-1)
            x = x + layer.output.dense(half(_silu(gate) * up))
        hidden = norm(x, encoder.encoder.emb_layer_norm_after)
        logits = model.logits(model.pool(hidden, input_ids, None))[:, model.slices[rank]]
        own = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
        rivals = torch.softmax(logits.scatter(1, targets.unsqueeze(1), -torch.inf), dim=1).detach()
        (own - (rivals * logits).sum(dim=1)).sum().backward()
        assert leaf.grad is not None
        return (leaf.detach() * leaf.grad).sum(dim=-1) * model.valid(input_ids)
