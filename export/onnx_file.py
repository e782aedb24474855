"""ONNX files from the fused torch module: `onnx_from_torch`.

    input_ids    int32 [batch, tokens]      right-padded with 1, `<cls>` (3) first
    explain_ids  int32 [batch, R]           class within the rank to explain, -1 the predicted one
    mask, rank_masks, explained_ids, probs, masked_probs: as `FusedOutput` says

What is written names neither the machine nor the source lines it came from, and the same weights give the same
bytes with the same versions of torch and onnx. Every file is checked here for operations that some runtime computes
wrongly or cannot hold on the GPU; whether its numbers are right is for `proof` to say.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from wyr_batch.engines.onnx import open_session
from wyr_batch.engines.signature import INPUTS, OUTPUTS, is_whole, output_shapes
from wyr_batch.errors import ModelError
from wyr_batch.host import available_cpus
from wyr_batch.models.fused import Fused
from wyr_batch.models.lstm import LstmExplainer

from .graph import GraphLstm
from .trace import OPSET, traced

PRODUCER = "wyr-batch"

# Loops and data-dependent sizes leave the GPU or break TensorRT; lengths are ignored or mishandled by some runtimes.
FORBIDDEN_OPS = ("NonZero", "Compress", "Loop", "Scan", "If", "Unique", "SequenceAt")

# A protobuf message ends at 2 GiB; above this the weights go into a file beside, `<name>.data`.
EXTERNAL_DATA_BYTES = 1_900_000_000

# Below this many numbers, storing float16 saves less than the Cast costs to read.
HALF_MIN_SIZE = 4096

Int32s = npt.NDArray[np.int32]


def onnx_from_torch(module: Fused, path: Path, *, compact: bool = False) -> None:
    """Write the fused module as an ONNX file with dynamic batch and tokens.

    Args:
        module: from `graph_module`, on the CPU.
        path: of the file; weights beyond 1.9 GB go to `<path>.data`.
        compact: store large weights that float16 holds exactly as float16, cast to float32 when a runtime loads the
            file. The numbers stay the same.
    Raises: ModelError if the module is not from `graph_module`, or the graph holds a forbidden operation.
    """
    explainer = module.explainer
    if isinstance(explainer, LstmExplainer):
        got = f"an explainer of type {type(explainer).__name__}"
        raise ModelError(path, got, "one that a graph can hold", "Make the module with graph_module().")
    most = module.explanandum.max_tokens
    max_tokens = explainer.max_tokens if isinstance(explainer, GraphLstm) else most
    n_bytes = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    external = n_bytes > EXTERNAL_DATA_BYTES
    n_ranks = len(module.explanandum.n_classes)
    with _quiet(), torch.no_grad():
        program = traced(module.eval(), max_tokens)
    if external:
        program.save(path, external_data=True)
    model = onnx.load(path, load_external_data=False) if external else program.model_proto
    _strip(model)
    _name_shapes(model, n_ranks, sum(module.explanandum.n_classes))
    if compact and not external:
        _store_as_half(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    check_graph(model, path)


def check_graph(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError unless the graph is valid ONNX of our opset without a forbidden operation.

    Args:
        path: where the file lies, for the message and for its external data.
    """
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found != {"": OPSET}:
        raise ModelError(path, f"opsets {found}", f"{OPSET} of the standard domain alone")
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    bad = sorted({node.op_type for node in nodes if node.op_type in FORBIDDEN_OPS})
    for node in nodes:
        if node.op_type != "LSTM":
            continue
        direction = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("direction", b"forward")
        if direction != b"forward":
            bad.append(f"LSTM ({direction.decode()})")
        if len(node.input) > 4 and node.input[4]:
            bad.append("LSTM with sequence_lens")
    if bad:
        raise ModelError(
            path,
            f"a graph with {', '.join(bad)}",
            "none of these, which some runtimes compute wrongly",
            "Please report it with the versions of torch and onnx.",
        )
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(path, f"'{error}'", "valid ONNX", "Please report it.") from None


def runner_from_onnx(
    path: Path, threads: int | None = None, masked_calls: bool = True
) -> Callable[[Int32s, Int32s], dict[str, Any]]:
    """Open a file in ONNX Runtime on the CPU.

    Args:
        threads: within an operation; None takes the CPUs the process may use.
        masked_calls: with the second pass.
    Returns: a function of int32 input_ids [B, T] and explain_ids [B, R] that gives the outputs by name.
    Raises: MissingExtraError without onnxruntime; ModelError if it cannot load the file.
    """
    session = open_session(path, threads or available_cpus(), masked_calls)
    names = [output.name for output in session.get_outputs()]

    def run(input_ids: Int32s, explain_ids: Int32s) -> dict[str, Any]:
        outputs = session.run(None, {"input_ids": input_ids, "explain_ids": explain_ids})
        return dict(zip(names, outputs, strict=True))

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log lines off the terminal; errors still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what names this machine (stack traces, doc strings) and shapes that follow from the example."""
    model.producer_name, model.producer_version, model.doc_string = PRODUCER, "", ""
    graph = model.graph
    graph.doc_string = ""
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
    del graph.value_info[:]


def _name_shapes(model: onnx.ModelProto, n_ranks: int, n_classes: int) -> None:
    """State inputs and outputs as the contract does; a traced length never stays."""
    named: dict[str, tuple[str | int, ...]] = output_shapes("batch", "tokens", n_ranks, n_classes)
    shapes: dict[str, tuple[int, tuple[str | int, ...]]] = {
        name: (TensorProto.INT32 if is_whole(name) else TensorProto.FLOAT, shape) for name, shape in named.items()
    }
    shapes |= zip(
        INPUTS, ((TensorProto.INT32, ("batch", "tokens")), (TensorProto.INT32, ("batch", n_ranks))), strict=True
    )
    values = [*model.graph.input, *model.graph.output]
    for value, name in zip(values, (*INPUTS, *OUTPUTS), strict=True):
        dtype, shape = shapes[name]
        found = value.type.tensor_type.elem_type
        if value.name != name or found != dtype:
            raise ModelError(f"graph value {value.name}", f"type {found}", f"{name} of type {dtype}")
        value.CopyFrom(helper.make_tensor_value_info(name, dtype, shape))


def _store_as_half(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16 with a Cast, where that changes no number."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALF_MIN_SIZE:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.float32", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
