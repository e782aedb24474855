"""torch.onnx: the fused module traced, its layers once for all of them, its scan not at all, and the graph tidied.

torch.onnx can optimise what it has traced. Of that, this folds constants and leaves out what nothing needs, so that no
sequence of tensors stays (`FORBIDDEN_OPS` in onnx_file.py); the rest, a search for patterns, runtimes do themselves.
"""

from __future__ import annotations

from typing import Any

import onnx_ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from wyr_batch.engines.signature import INPUTS, OUTPUTS
from wyr_batch.models.fused import Fused

from .layers import as_nodes, layer_function, one_layer, varying_sizes
from .scan import rounds_function

OPSET = 20

# Only to trace with: every other length and batch size is as good.
EXAMPLE_ROWS, EXAMPLE_TOKENS = 2, 24


def traced(module: Fused, max_tokens: int) -> torch.onnx.ONNXProgram:
    """Return the module as a graph of standard operations, with dynamic batch and tokens.

    Args:
        module: from `graph_module`, in evaluation mode on the CPU.
        max_tokens: the longest row.
    """
    rows, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1, max=max_tokens)
    example = EXAMPLE_ROWS, min(EXAMPLE_TOKENS, max_tokens)
    other = example[0] + 1, example[1] - 1  # to see which sizes vary
    layers = module.explanandum.layers()
    with as_nodes(layers):
        varying = {"input_ids": {0: rows, 1: tokens}, "explain_ids": {0: rows}}
        program = _program(module, _example(module, *example), varying, input_names=INPUTS, output_names=OUTPUTS)
    functions = [rounds_function(max_tokens, OPSET)]
    if layers:
        layer, again = (one_layer(module, layers[0], _example(module, *sizes)) for sizes in (example, other))
        dims = {(example[0], other[0]): rows, (example[1], other[1]): tokens}
        functions.append(layer_function(_program(layer, layer.inputs, (varying_sizes(layer, again, dims),)).model))
    program.model.functions.update({function.identifier(): function for function in functions})
    passes.InlinePass()(program.model)
    _tidy(program.model)
    return program


def _example(module: Fused, n_rows: int, n_tokens: int) -> tuple[Tensor, Tensor]:
    """Return input_ids and explain_ids."""
    n_ranks = len(module.explanandum.n_classes)
    input_ids = torch.full((n_rows, n_tokens), 6, dtype=torch.int32)
    return input_ids, torch.full((n_rows, n_ranks), -1, dtype=torch.int32)


def _program(module: nn.Module, inputs: tuple[Tensor, ...], varying: Any, **names: Any) -> torch.onnx.ONNXProgram:
    """Return a module as torch.onnx traces it; `varying` says which sizes of its inputs vary."""
    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=varying,
        optimize=False,
        external_data=False,
        verbose=False,
        **names,
    )
    assert program is not None  # what dynamo=True returns
    return program


def _tidy(model: onnx_ir.Model) -> None:
    """Compute what is constant, write constants and expressions once, and leave out what nothing needs, in place."""
    onnxscript.optimizer.fold_constants_ir(model, onnx_shape_inference=True)
    onnx_ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    )(model)
