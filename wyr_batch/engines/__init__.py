"""Engines: what runs the fused graph. `open_engine` picks one; what was asked for and is not there is an error."""

from __future__ import annotations

from importlib.util import find_spec

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine, EngineOutput
from wyr_batch.errors import UsageError
from wyr_batch.log import logger

__all__ = ["Engine", "EngineOutput", "open_engine", "open_engines"]


RUNTIMES = {
    "onnx": ("float32", "float16"),
    "openvino": ("float32", "bfloat16"),
    "torch": ("float32", "float16", "bfloat16"),
}
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def open_engines(bundle: Bundle, device: str, runtime: str, dtype: str, threads: int) -> list[Engine]:
    """Load a bundle once for each thread that is to feed a device; see `open_engine`.

    Returns: engines that may run at the same time; on a CPU one, for it takes all threads by itself.
    """
    return [open_engine(bundle, device, runtime, dtype, threads)]


def open_engine(bundle: Bundle, device: str, runtime: str, dtype: str, threads: int) -> Engine:
    """Load a bundle.

    Args:
        device: 'auto' or 'cpu'.
        runtime: 'auto', 'onnx', 'openvino' or 'torch'; see `choose_runtime`.
        dtype: 'auto' or a precision the bundle proves; 'auto' is float32.
        threads: for the arithmetic of one batch.
    Raises: UsageError, ModelError, MissingExtraError; never a silent fallback from what was asked for.
    """
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"--device: got {device}, expected auto or cpu. This version runs on CPUs only; GPU engines are not in it."
        )
    dtype = "float32" if dtype == "auto" else dtype
    if runtime == "auto":
        runtime, why = choose_runtime(bundle, dtype)
        logger.info("runtime: %s (%s)", runtime, why)
    if runtime not in RUNTIMES:
        raise UsageError(f"--runtime: got {runtime}, expected auto, {', '.join(RUNTIMES)}.")
    if dtype not in RUNTIMES[runtime]:
        raise UsageError(f"--dtype: got {dtype} with --runtime {runtime}, expected {' or '.join(RUNTIMES[runtime])}.")
    if runtime == "onnx":
        from wyr_batch.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, dtype, threads)
    if runtime == "openvino":
        from wyr_batch.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, dtype, threads)
    from wyr_batch.engines.torch import TorchEngine

    return TorchEngine(bundle, dtype, threads)


def choose_runtime(bundle: Bundle, dtype: str) -> tuple[str, str]:
    """Return the runtime that 'auto' picks for a precision, and why, in a few words.

    OpenVINO where it is installed, proven for this bundle, and was faster when the bundle was exported; else ONNX
    Runtime; else torch, if that is all there is.
    """
    here = {name for name, package in _PACKAGES.items() if find_spec(package) is not None}
    speeds = bundle.rows_per_s
    able = [name for name in ("onnx", "openvino", "torch") if name in here and dtype in RUNTIMES[name]]
    if "openvino" in able and bundle.is_proven("openvino", dtype):
        if "onnx" not in able:
            return "openvino", f"the one that computes in {dtype}"
        ratio = speeds.get(f"openvino {dtype}", 0.0) / speeds.get(f"onnx {dtype}", float("inf"))
        if ratio > 1:
            return "openvino", f"proven, and {ratio:.1f} times ONNX Runtime when the bundle was exported"
    if "onnx" in able or not here:
        return "onnx", "the default"
    fallback = next((name for name in able if name != "openvino"), "onnx")
    return fallback, f"what is installed and computes in {dtype}"
