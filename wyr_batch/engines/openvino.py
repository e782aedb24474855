"""OpenVINO on the CPU: often faster than ONNX Runtime, and the one that computes in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine, EngineOutput, Int32s
from wyr_batch.errors import MissingExtraError, ModelError

# Left to itself OpenVINO takes bfloat16 where the CPU has it, so the precision is always said.
PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def open_request(path: Path, dtype: str, threads: int) -> Any:
    """Compile an ONNX file for the CPU.

    Args:
        dtype: 'float32' or 'bfloat16', the precision it computes in; the file is float32 either way.
    Returns: an inference request.
    Raises: MissingExtraError without openvino; ModelError if the file cannot be compiled.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("--runtime openvino", "openvino", "openvino") from None
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise ModelError(f"{path}: got '{str(error)[:300]}', expected a graph OpenVINO can compile.") from error


def infer(request: Any, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
    """Run one batch; the outputs lie in the request's own memory."""
    request.infer({"input_ids": input_ids, "explain_ids": explain_ids}, share_inputs=True)
    return EngineOutput(*(request.get_tensor(name).data for name in EngineOutput._fields))


class OpenVinoEngine(Engine):
    """Runs a bundle's float32 ONNX file, in float32 or bfloat16."""

    runtime = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, dtype: str, threads: int) -> None:
        super().__init__(bundle)
        self.dtype = dtype
        self._request = open_request(bundle.proven("openvino", dtype), dtype, threads)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        return infer(self._request, input_ids, explain_ids)
