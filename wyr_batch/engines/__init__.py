"""Engines: what runs the fused graph. `open_engines` picks; what was asked for and is not there is an error."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine, EngineOutput
from wyr_batch.engines.cuda import find_gpus, gpus_for
from wyr_batch.errors import UsageError
from wyr_batch.log import logger

__all__ = ["Engine", "EngineOutput", "open_engine", "open_engines"]

# On the CPU; engines/gpu.py has those of GPUs.
RUNTIMES = {
    "onnx": ("float32", "float16"),
    "openvino": ("float32", "bfloat16"),
    "torch": ("float32", "float16", "bfloat16"),
}
GPU_ONLY = ("tensorrt",)
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def open_engines(
    bundle: Bundle, device: str, runtime: str, dtype: str, threads: int, in_flight: int = 2
) -> list[Engine]:
    """Load a bundle once for each batch that is to be in flight; see `open_engine`.

    Args:
        device: 'cuda:all' as well: every GPU.
        in_flight: batches at once on each GPU, so that one is computed while another is copied and laid out.
    Returns: engines that may run at the same time, each fed by a thread of its own; those of one GPU share its
        weights. On a CPU one, for it takes all threads by itself.
    Raises: UsageError, ModelError, MissingExtraError; never a silent fallback from what was asked for.
    """
    where = choose_device(device, runtime, dtype)
    if where == "cpu":
        return [_open_on_cpu(bundle, runtime, dtype, threads)]
    from wyr_batch.engines.gpu import open_on_gpus

    return open_on_gpus(bundle, where, runtime, dtype, threads, in_flight)


def open_engine(bundle: Bundle, device: str, runtime: str, dtype: str, threads: int) -> Engine:
    """Load a bundle.

    Args:
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'; see `choose_device`.
        runtime: 'auto', 'onnx', 'tensorrt', 'openvino' or 'torch'; see `choose_runtime` and gpu.py.
        dtype: 'auto' or a precision the bundle proves; 'auto' is float32 on a CPU, and on a GPU float16 if proven.
        threads: for the arithmetic of one batch on a CPU.
    Raises: UsageError, ModelError, MissingExtraError; never a silent fallback from what was asked for.
    """
    engines = open_engines(bundle, device, runtime, dtype, threads, in_flight=1)
    with ExitStack() as rest:
        for engine in engines[1:]:
            rest.enter_context(engine)
    return engines[0]


def choose_device(device: str, runtime: str, dtype: str) -> str:
    """Return 'cpu' or the GPUs' name: what was asked for, or for 'auto' a GPU if one can be used.

    'auto' is the first GPU if there is one and a runtime that was asked for, or any, can use it; else the CPU. What
    it picked, and why, is said.
    """
    if runtime not in ("auto", *RUNTIMES, *GPU_ONLY):
        raise UsageError(f"--runtime: got {runtime}, expected auto, {', '.join([*RUNTIMES, *GPU_ONLY])}.")
    if device == "cpu" and runtime in GPU_ONLY:
        raise UsageError(f"--runtime: got {runtime} with --device cpu, expected --device cuda or another --runtime.")
    if device != "auto":
        return device
    if runtime in GPU_ONLY:
        return gpus_for(f"--runtime: got {runtime}")[0].device
    if runtime == "openvino":
        return "cpu"
    gpus, why = find_gpus()
    if gpus:
        from wyr_batch.engines.gpu import usable_runtimes

        problems: dict[str, str] = {}
        usable = usable_runtimes(runtime, dtype, problems)
        if usable:
            logger.info("device: cuda:0, %s", gpus[0].name)
            return "cuda:0"
        why = f"{gpus[0].name} is there, but {'; '.join(problems.values()) or f'no runtime has {dtype}'}"
    logger.info("device: cpu (%s)", why)
    return "cpu"


def _open_on_cpu(bundle: Bundle, runtime: str, dtype: str, threads: int) -> Engine:
    dtype = "float32" if dtype == "auto" else dtype
    if runtime == "auto":
        runtime, why = choose_runtime(bundle, dtype)
        logger.info("runtime: %s (%s)", runtime, why)
    if dtype not in RUNTIMES[runtime]:
        raise UsageError(f"--dtype: got {dtype} with --runtime {runtime}, expected {' or '.join(RUNTIMES[runtime])}.")
    if runtime == "onnx":
        from wyr_batch.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, dtype, threads)
    if runtime == "openvino":
        from wyr_batch.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, dtype, threads)
    from wyr_batch.engines.torch import LoadedModel, TorchEngine

    return TorchEngine(bundle, dtype, LoadedModel(bundle, dtype, "cpu", threads))


def choose_runtime(bundle: Bundle, dtype: str) -> tuple[str, str]:
    """Return the runtime that 'auto' picks for a precision on the CPU, and why, in a few words.

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
