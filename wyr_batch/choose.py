"""Which engine runs a bundle: device, runtime and precision, opened and, on a GPU, proven.

What was asked for and is not there is an error, never a silent fallback; what 'auto' picks, and why, is said. On GPUs a
bundle is loaded once for each, and two batches are in flight:

| runtime  | computes from                  | precisions                  | a GPU's share |
| -------- | ------------------------------ | --------------------------- | ------------- |
| tensorrt | model.fp16.onnx, model.onnx    | float16, float32            | LoadedPlan    |
| torch    | checkpoint/                    | float16, bfloat16, float32  | LoadedModel   |
| onnx     | model.fp16.onnx, model.onnx    | float16, float32            | LoadedSession |

Their CUDA libraries do not go together. So where there are several to choose from, each says its version and is proven
in a process of its own; this process loads the one that is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine
from wyr_batch.engines.cuda import Gpu, chosen_gpus, cuda_device, find_gpus, gpus_for
from wyr_batch.errors import EngineError, MissingExtraError, ModelError, UsageError
from wyr_batch.host import available_cpus
from wyr_batch.proof.apart import apart
from wyr_batch.proof.first_use import ensure_proven, proven_rows_per_s
from wyr_batch.proof.versions import runtime_version, version_apart

logger = logging.getLogger(__name__)

# On the CPU.
RUNTIMES = {
    "onnx": ("float32", "float16"),
    "openvino": ("float32", "bfloat16"),
    "torch": ("float32", "float16", "bfloat16"),
}
GPU_ONLY = ("tensorrt",)
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}

# In the order in which 'auto' takes them where nothing has been measured.
GPU_RUNTIMES = {
    "tensorrt": ("float32", "float16"),
    "torch": ("float32", "float16", "bfloat16"),
    "onnx": ("float32", "float16"),
}


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a user asks for.

    Attributes:
        device: 'auto', 'cpu', 'cuda', 'cuda:N', or 'cuda:all' for every GPU; see `choose_device`.
        runtime: 'auto', 'onnx', 'tensorrt', 'openvino' or 'torch'; see `choose_runtime`, `choose_ways`.
        dtype: 'auto' or a precision the bundle proves; 'auto' is float32 on a CPU, and on a GPU float16 if proven.
        threads: for the arithmetic of one batch on a CPU; 0 takes those the process may use.
        in_flight: batches at once on each GPU, so that one is computed while another is copied and laid out.
        masked_calls: classify masked reads as well. Without, the second pass is left out where that is proven; where it
            is not, on a CPU, the engine computes it all the same, and that is said.
    """

    device: str = "auto"
    runtime: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    in_flight: int = 2
    masked_calls: bool = True


def open_engines(bundle: Bundle, request: EngineRequest) -> list[Engine]:
    """Load a bundle once for each batch that is to be in flight.

    Returns: engines that may run at the same time, each fed by a thread of its own; those of one GPU share its
        weights. On a CPU one, for it takes all threads by itself; of torch on a GPU one, which has room for several
        batches (`Engine.in_flight`).
    Raises: UsageError, ModelError, MissingExtraError; never a silent fallback from what was asked for.
    """
    request = replace(request, threads=request.threads or available_cpus())
    where = choose_device(request.device, request.runtime, request.dtype)
    if where == "cpu":
        return [_open_on_cpu(bundle, request)]
    return open_on_gpus(bundle, where, request)


def open_engine(bundle: Bundle, request: EngineRequest) -> Engine:
    """Load a bundle for one batch at a time; arguments and errors as of `open_engines`."""
    engines = open_engines(bundle, replace(request, in_flight=1))
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
        raise UsageError("--runtime", runtime, f"auto, {', '.join([*RUNTIMES, *GPU_ONLY])}")
    if device == "cpu" and runtime in GPU_ONLY:
        raise UsageError("--runtime", f"{runtime} with --device cpu", "--device cuda or another --runtime")
    if device != "auto":
        return device
    if runtime in GPU_ONLY:
        return gpus_for("--runtime", runtime)[0].device
    if runtime == "openvino":
        return "cpu"
    gpus, why = find_gpus()
    if gpus:
        problems: dict[str, str] = {}
        usable = usable_runtimes(runtime, dtype, problems)
        if usable:
            logger.info("device: cuda:0, %s", gpus[0].name)
            return "cuda:0"
        why = f"{gpus[0].name} is there, but {'; '.join(problems.values()) or f'no runtime has {dtype}'}"
    logger.info("device: cpu (%s)", why)
    return "cpu"


def _open_on_cpu(bundle: Bundle, request: EngineRequest) -> Engine:
    runtime, threads = request.runtime, request.threads
    dtype = "float32" if request.dtype == "auto" else request.dtype
    if runtime == "auto":
        runtime, why = choose_runtime(bundle, dtype)
        logger.info("runtime: %s (%s)", runtime, why)
    if dtype not in RUNTIMES[runtime]:
        raise UsageError("--dtype", f"{dtype} with --runtime {runtime}", " or ".join(RUNTIMES[runtime]))
    masked_calls = request.masked_calls or not bundle.proves_without_masked_calls(runtime, dtype)
    if masked_calls and not request.masked_calls:
        logger.warning(
            "%s: %s %s has not been proven without the second pass, so it is computed; export the bundle again.",
            *(bundle.name, runtime, dtype),
        )
    if runtime == "onnx":
        from wyr_batch.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, dtype, threads, masked_calls)
    if runtime == "openvino":
        from wyr_batch.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, dtype, threads, masked_calls)
    from wyr_batch.engines.torch import LoadedModel, TorchEngine

    return TorchEngine(bundle, dtype, LoadedModel(bundle, dtype, "cpu", threads), masked_calls)


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


def usable_runtimes(runtime: str, dtype: str, problems: dict[str, str]) -> dict[str, str]:
    """Return the versions of the runtimes, of those asked for, that can use a GPU here in that precision.

    Args:
        runtime: one, which is loaded, or 'auto' for all, none of which is; dtype: one, or 'auto' for any.
        problems: takes the reason for each that cannot.
    """
    versions = {}
    for name in GPU_RUNTIMES if runtime == "auto" else [runtime]:
        if dtype == "auto" or dtype in GPU_RUNTIMES[name]:
            try:
                versions[name] = version_apart(name) if runtime == "auto" else runtime_version(name)
            except (MissingExtraError, UsageError, ModelError) as error:
                problems[name] = f"{error.where}: got {error.got}, expected {error.expected}"
    return versions


def choose_ways(
    bundle: Bundle, gpu: Gpu, runtime: str, dtype: str, versions: dict[str, str], masked_calls: bool = True
) -> tuple[list[tuple[str, str]], str]:
    """Return (runtime, precision) in the order in which to try them, and why the first is first.

    Precision 'auto' is float16 where the runtime has something to compute it from, else float32. Of several runtimes
    the one comes first that was fastest on a GPU of this model: as this machine measured when it proved it, or as the
    bundle's parity.json says; else half precision before float32, and TensorRT before torch before ONNX Runtime.
    """
    ways: list[tuple[str, str]] = []
    for name in versions:
        halves = name == "torch" or bundle.holds("onnx", "float16")
        wanted = (["float16", "float32"] if halves else ["float32"]) if dtype == "auto" else [dtype]
        ways += [(name, precision) for precision in wanted if precision in GPU_RUNTIMES[name]]

    def speed(way: tuple[str, str]) -> float:
        here = proven_rows_per_s(bundle, way[0], versions[way[0]], way[1], gpu, masked_calls)
        return here or float(bundle.rows_per_s.get(f"{way[0]} {way[1]} on {gpu.name}", 0.0))

    speeds = {way: speed(way) for way in ways}
    order = list(GPU_RUNTIMES)
    ways.sort(key=lambda way: (-speeds[way], way[1] == "float32", order.index(way[0])))
    if runtime != "auto":
        return ways, "asked for"
    if ways and speeds[ways[0]]:
        return ways, f"{speeds[ways[0]]:.0f} rows/s on a {gpu.name}, the fastest that was measured"
    return ways, f"nothing has been measured on this GPU; of {', '.join(versions)} it comes first"


def open_on_gpus(bundle: Bundle, device: str, request: EngineRequest) -> list[Engine]:
    """Load and prove a bundle on GPUs.

    Args:
        device: 'cuda', 'cuda:N' or 'cuda:all'; that of the request is not looked at.
    Returns: engines of one runtime and precision: for each GPU `in_flight`, or one with room for so many.
    Raises: UsageError, MissingExtraError if the GPU or runtime is not there; ModelError if what was asked for is not
        in the bundle or fails its proof; EngineError if the last way fails on a batch of it. With precision 'auto',
        float32 follows a float16 that fails, and is said.
    """
    runtime, dtype = request.runtime, request.dtype
    gpus = chosen_gpus(device)
    if runtime == "tensorrt" and not request.masked_calls:
        raise UsageError("--no-masked-calls", "--runtime tensorrt", "torch or onnx", "A plan holds the second pass.")
    if runtime == "openvino":
        raise UsageError("--runtime", f"openvino with --device {device}", ", ".join(GPU_RUNTIMES))
    if runtime != "auto":
        versions = {runtime: runtime_version(runtime)}
        if dtype != "auto" and dtype not in GPU_RUNTIMES[runtime]:
            names = " or ".join(GPU_RUNTIMES[runtime])
            raise UsageError("--dtype", f"{dtype} with --runtime {runtime} on {device}", names)
    else:
        problems: dict[str, str] = {}
        versions = usable_runtimes(runtime, dtype, problems)
        if "tensorrt" in versions and not request.masked_calls:
            del versions["tensorrt"]
            problems["tensorrt"] = "TensorRT cannot leave the second pass out (--no-masked-calls)"
            logger.info("runtime: not tensorrt, whose plans hold the second pass")
        if not versions:
            said = "; ".join(problems.values()) or f"no runtime computes in {dtype}"
            raise UsageError(
                "--device",
                device,
                f"a runtime that can use it: {said}",
                "Run: pip install 'wyr-batch[gpu,tensorrt]', or use -x cpu",
            )
    ways, why = choose_ways(bundle, gpus[0], runtime, dtype, versions, request.masked_calls)
    several = len(versions) > 1
    for position, (name, precision) in enumerate(ways):
        logger.info("runtime: %s %s on %s (%s)", name, precision, gpus[0].name, why)
        way = replace(request, runtime=name, dtype=precision)
        try:
            if not several:
                return _open_way(bundle, gpus, way, versions[name])
            known = (name, versions[name], precision)
            if any(proven_rows_per_s(bundle, *known, gpu, request.masked_calls) is None for gpu in gpus):
                prove_apart(bundle, gpus, way, versions[name])
        except (ModelError, EngineError) as error:
            if position + 1 == len(ways):
                raise
            logger.warning("%s", error)
            why = "the next best"
        else:
            return _open_way(bundle, gpus, way, versions[name])
    raise UsageError("--dtype", dtype, f"one that {', '.join(versions)} can compute on {device}")


def prove_apart(bundle: Bundle, gpus: Sequence[Gpu], request: EngineRequest, version: str) -> None:
    """Open a runtime, prove it unless that has been done, and close it, all in a process of its own.

    Args:
        request: with the runtime and precision; version: of that runtime.
    Raises: as `open_on_gpus`; ModelError if the process does not live to answer.
    """
    apart(f"{request.runtime} {request.dtype} on {gpus[0].device}", _prove_way, bundle, gpus, request, version)


def _prove_way(bundle: Bundle, gpus: Sequence[Gpu], request: EngineRequest, version: str) -> None:
    for engine in _open_way(bundle, gpus, request, version):
        engine.close()


def _open_way(bundle: Bundle, gpus: Sequence[Gpu], request: EngineRequest, version: str) -> list[Engine]:
    engines: list[Engine] = []
    with ExitStack() as on_failure:
        for position, gpu in enumerate(gpus):
            for engine in load_on_gpu(bundle, gpu, request):
                engines.append(on_failure.enter_context(engine))
            if gpu.name not in [other.name for other in gpus[:position]]:
                ensure_proven(engines[-1], version, gpu, request.threads)
        on_failure.pop_all()
    return engines


def load_on_gpu(bundle: Bundle, gpu: Gpu, request: EngineRequest) -> Iterator[Engine]:
    """Load what the engines of one GPU share, and yield them: one for each batch in flight; of torch, one for all.

    Nothing is proven here.
    """
    dtype, masked_calls, in_flight = request.dtype, request.masked_calls, request.in_flight
    if request.runtime == "torch":
        from wyr_batch.engines.torch import LoadedModel, TorchEngine

        model = LoadedModel(bundle, dtype, gpu.device, request.threads)
        yield TorchEngine(bundle, dtype, model, masked_calls, in_flight)
    elif request.runtime == "onnx":
        from wyr_batch.engines.onnx_cuda import LoadedSession, OnnxCudaEngine

        session = LoadedSession(bundle, dtype, cuda_device(gpu), masked_calls)
        for _ in range(in_flight):
            yield OnnxCudaEngine(bundle, dtype, session)
    else:
        from wyr_batch.engines.tensorrt import LoadedPlan, TensorRtEngine

        plan = LoadedPlan(bundle, dtype, cuda_device(gpu))
        for _ in range(in_flight):
            yield TensorRtEngine(bundle, dtype, plan)
