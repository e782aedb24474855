"""Engines: what runs the fused graph. `open_engine` picks one; what was asked for and is not there is an error."""

from __future__ import annotations

from importlib.util import find_spec

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine, EngineOutput
from wyr_batch.errors import UsageError

__all__ = ["Engine", "EngineOutput", "open_engine"]


def open_engine(bundle: Bundle, device: str, runtime: str, dtype: str, threads: int) -> Engine:
    """Load a bundle.

    Args:
        device: 'auto' or 'cpu'.
        runtime: 'auto', 'onnx' or 'torch'. 'auto' is onnx where onnxruntime is installed, else torch.
        dtype: 'auto' or a dtype the bundle holds; 'auto' is float32.
        threads: for the arithmetic of one batch.
    Raises: UsageError, ModelError, MissingExtraError; never a silent fallback from what was asked for.
    """
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"--device: got {device}, expected auto or cpu. This version runs on CPUs only; GPU engines are not in it."
        )
    if runtime == "auto":
        runtime = "torch" if find_spec("onnxruntime") is None and find_spec("torch") is not None else "onnx"
    dtype = "float32" if dtype == "auto" else dtype
    if runtime == "onnx":
        from wyr_batch.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, dtype, threads)
    if runtime == "torch":
        if dtype != "float32":
            raise UsageError(f"--dtype: got {dtype} with --runtime torch, expected float32.")
        from wyr_batch.engines.torch import TorchEngine

        return TorchEngine(bundle, threads)
    raise UsageError(f"--runtime: got {runtime}, expected auto, onnx or torch.")
