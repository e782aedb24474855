"""What a bundle does on this machine's GPU: the TensorRT plan built, every GPU runtime proven, speeds written down.

    bundle -> TensorRT plan in the cache -> proof of each runtime that is here -> rows_per_s in parity.json

The plan and the proofs belong to this machine and stay in its cache; the speeds go into the bundle, by runtime,
precision and GPU model, for `--runtime auto` on other machines with such a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from wyr_batch.bundle import Bundle
from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import write_whole
from wyr_batch.choose import GPU_RUNTIMES, EngineRequest, prove_apart, usable_runtimes
from wyr_batch.engines.cuda import Gpu, gpus_for
from wyr_batch.errors import ModelError, WyrError
from wyr_batch.proof.first_use import proven_rows_per_s
from wyr_batch.proof.versions import version_apart


def check_tensorrt() -> Gpu:
    """Return the GPU that plans are built for. Raises: UsageError, MissingExtraError if TensorRT has nothing to run on.

    Called before an export of many minutes begins.
    """
    gpu = gpus_for("--tensorrt", "no GPU", "leave --tensorrt out")[0]
    version_apart("tensorrt")
    return gpu


def prove_on_gpu(
    bundle: Bundle, gpu: Gpu, dtypes: Sequence[str], threads: int, progress: Callable[[str], None] = lambda line: None
) -> dict[str, float]:
    """Build the plans of a bundle, prove its runtimes on a GPU, and add their speeds to its parity.json.

    Each is built and proven in a process of its own: their CUDA libraries, and those of the torch that has exported the
    bundle, do not go together.

    Args:
        dtypes: precisions that were exported.
        threads: for the float32 reference on the CPU.
    Returns: rows/s by runtime, precision and GPU, as in 'tensorrt float16 on NVIDIA H100'.
    Raises: WyrError if TensorRT cannot do it; another runtime that cannot is left out, and said.
    """
    speeds: dict[str, float] = {}
    versions = usable_runtimes("auto", "auto", {})
    for runtime, version in versions.items():
        for dtype in dtypes:
            if dtype not in GPU_RUNTIMES[runtime]:
                continue
            try:
                prove_apart(bundle, [gpu], EngineRequest(gpu.device, runtime, dtype, threads, in_flight=1), version)
            except WyrError as error:
                if runtime == "tensorrt":
                    raise
                progress(f"left out: {error}")
                continue
            speed = proven_rows_per_s(bundle, runtime, version, dtype, gpu)
            assert speed is not None  # what has just been proven
            speeds[f"{runtime} {dtype} on {gpu.name}"] = speed
    path = bundle.folder / "parity.json"
    content = Fields.read(path, ModelError)
    rows_per_s = {**content.mapping("rows_per_s", {}), **speeds}
    write_whole(path, json.dumps({**content.content, "rows_per_s": rows_per_s}, indent=2, allow_nan=False) + "\n")
    return speeds
