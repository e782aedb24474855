"""One layer traced for all: an encoder's layers differ in weights alone.

    the module, its layers as nodes  -> a graph with a node `Layer` for each call, its weights among the inputs
    the first layer, as a function   -> the function `Layer`
    in the place of the nodes        -> a graph of standard operations

torch.onnx takes its time for every operation, whatever the size. Which families have such layers, they say themselves:
`Explanandum.layers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import onnx_ir
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

DOMAIN, NAME = "wyr_batch", "Layer"


class OneLayer(nn.Module):
    """A layer whose weights are inputs, so that it stands for all layers.

    Attributes:
        inputs: the tensors that the layer is called with, then its weights.
    """

    def __init__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """
        Args:
            args, kwargs: what the layer is called with; what is no tensor stays as it is.
        """
        super().__init__()
        self._layer = [layer]  # in a list, so that its weights are none of this module
        self._leaves, self._form = pytree.tree_flatten((args, kwargs))
        weights, given = _weights(layer), [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        self._names, self.inputs = list(weights), (*given, *weights.values())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return hidden states of tensors such as `inputs`."""
        rest = iter(inputs)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._form)
        weights = dict(zip(self._names, rest, strict=True))
        hidden: Tensor = torch.func.functional_call(self._layer[0], weights, args, kwargs)
        return hidden


def one_layer(module: nn.Module, layer: nn.Module, inputs: Sequence[Tensor]) -> OneLayer:
    """Run a module on inputs, and return a layer of it with what that was called with first."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = layer.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        module(*inputs)
    finally:
        hook.remove()
    return OneLayer(layer, *calls[0])


def varying_sizes(
    one: OneLayer, other: OneLayer, dims: Mapping[tuple[int, int], torch.export.Dim]
) -> tuple[dict[int, torch.export.Dim], ...]:
    """Return which dimensions of each input vary, seen from a layer called in two ways.

    Args:
        dims: what varies, by its sizes in the two.
    """
    return tuple(
        {place: dims[sizes] for place, sizes in enumerate(zip(a.shape, b.shape, strict=True)) if sizes[0] != sizes[1]}
        for a, b in zip(one.inputs, other.inputs, strict=True)
    )


@contextlib.contextmanager
def as_nodes(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Have torch.onnx write each call of a layer as a node `Layer`."""
    for layer in layers:
        layer.forward = partial(_node, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def layer_function(layer: onnx_ir.Model) -> onnx_ir.Function:
    """Return the graph of a `OneLayer` as the function that nodes `Layer` call."""
    return onnx_ir.Function(DOMAIN, NAME, "", graph=layer.graph, attributes=[])


def _node(layer: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    hidden = given[0]  # its shape and type are those of what comes out
    inputs = (*given, *_weights(layer).values())
    node: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{NAME}", inputs, dtype=hidden.dtype, shape=hidden.shape, version=1
    )
    return node


def _weights(layer: nn.Module) -> dict[str, Tensor]:
    return {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
