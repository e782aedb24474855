"""OpenVINO on the CPU: often faster than ONNX Runtime, and the one that computes in bfloat16.

Where memory is short, a call may fail in two ways, and what is left inside the graph is then not to be trusted, so it
is compiled anew. It may raise; then the graph is given back. Or it returns without having run, and outputs are as they
were: so every call brings outputs of its own, filled with values that no result has, and what is still there afterwards
shows it. Such a graph is left alone and never given back, which would end the process. OpenVINO may also write to the
arrays of the call before: they are kept until the next one is done, and what is handed out are copies.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine, is_out_of_memory
from wyr_batch.engines.signature import (
    INPUTS,
    OF_SECOND_PASS,
    EngineOutput,
    Int32s,
    engine_output,
    output_dtype,
    output_shapes,
)
from wyr_batch.errors import MissingExtraError, ModelError, OutOfMemory

# Left to itself OpenVINO takes bfloat16 where the CPU has it, so the precision is always said.
PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_LEFT_ALONE: list[object] = []  # graphs that returned without having run
_UNWRITTEN = -2  # masks and probabilities are 0 or more, classes are 0 or more


def import_openvino() -> ModuleType:
    """Return openvino, without the reports on its use that it sends to an analytics host when it is imported.

    They come from a package of their own, openvino_telemetry, and OpenVINO does without them where that is not
    installed. So it is kept from being found while OpenVINO is imported.

    Raises: MissingExtraError.
    """
    telemetry = "openvino_telemetry"
    before = sys.modules.get(telemetry)
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("--runtime openvino", "openvino", "openvino") from None
    finally:
        del sys.modules[telemetry]
        if before is not None:
            sys.modules[telemetry] = before
    module: ModuleType = openvino
    return module


class OpenVinoGraph:
    """An ONNX file compiled for the CPU. For one call at a time."""

    def __init__(self, path: Path, dtype: str, threads: int, masked_calls: bool = True) -> None:
        """Compile the file; without masked calls, without the second pass, which OpenVINO drops with its output.

        Args:
            dtype: 'float32' or 'bfloat16', the precision it computes in; the file is float32 either way.
        Raises: MissingExtraError without openvino; ModelError if the file cannot be compiled; OutOfMemory.
        """
        self._openvino = import_openvino()
        self._path, self._masked_calls = path, masked_calls
        self._settings = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._core = self._openvino.Core()
        self._model: Any = None
        self._held: object = None  # arrays of the last call, which the request still knows
        self._request: Any = self._compile()

    def _compile(self) -> Any:
        try:
            if self._model is None:
                self._model = self._core.read_model(self._path)
                if not self._masked_calls:
                    self._model.remove_result(self._model.output(OF_SECOND_PASS).get_node())
            compiled = self._core.compile_model(self._model, "CPU", self._settings)
            self._n_ranks = compiled.output("explained_ids").partial_shape[1].get_length()
            self._n_classes = compiled.output("probs").partial_shape[1].get_length()
            return compiled.create_infer_request()
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                got = f"no memory to compile it ('{str(error)[:100]}')"
                raise OutOfMemory(self._path, got, "some", "Free some.") from None
            got = str(error)[:300]
            raise ModelError(self._path, f"'{got}'", "a graph OpenVINO can compile") from error

    def run(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        """Run one batch; arguments and results as of `Engine.infer`. Raises: OutOfMemory, RuntimeError."""
        if self._request is None:
            try:
                self._request = self._compile()
            except ModelError:  # it has been compiled before, so the file is not the reason
                raise OutOfMemory(
                    self._path, "no memory to compile it again", "some", "Free some, or give a smaller -b."
                ) from None
        rows, n_tokens = input_ids.shape
        outputs: dict[str, Any] = {}
        sizes = (rows, n_tokens, self._n_ranks, self._n_classes)
        for name, shape in output_shapes(*sizes, self._masked_calls).items():
            outputs[name] = np.full(shape, _UNWRITTEN, output_dtype(name))
            self._request.set_tensor(name, self._openvino.Tensor(outputs[name], shared_memory=True))
        held, self._held = self._held, (outputs, input_ids, explain_ids)
        try:
            self._request.infer(dict(zip(INPUTS, (input_ids, explain_ids), strict=True)), share_inputs=True)
        except BaseException:
            self.drop()
            raise
        del held
        if left := [name for name, values in outputs.items() if (values == _UNWRITTEN).any()]:
            _LEFT_ALONE.append((self._request, self._held))
            self.drop()
            raise OutOfMemory(
                "openvino",
                f"no values of {', '.join(left)} for {rows} reads of {n_tokens} tokens",
                "them all: it does so where memory is short",
                "Free some, or give a smaller -b.",
            )
        return engine_output({name: values.copy() for name, values in outputs.items()})

    def drop(self) -> None:
        """Give back the compiled graph; the next call compiles it anew."""
        self._request = self._held = None


class OpenVinoEngine(Engine):
    """Runs a bundle's float32 ONNX file, in float32 or bfloat16."""

    runtime = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, dtype: str, threads: int, masked_calls: bool = True) -> None:
        super().__init__(bundle, masked_calls)
        self.dtype = dtype
        self._graph = OpenVinoGraph(bundle.proven("openvino", dtype), dtype, threads, masked_calls)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        return self._graph.run(input_ids, explain_ids)

    def _close(self) -> None:
        self._graph.drop()
