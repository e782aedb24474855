"""TensorRT plans from ONNX files: profiles, the builder, and the cache around it. Native API, 10.12 to 11.

    model.fp16.onnx -> strongly typed network -> one optimisation profile per length bucket -> plan -> plan cache

A strongly typed network computes in the types that stand in the file, so the float16 graph is what makes a float16
engine, and the same calls serve every version. A plan is good for one file, TensorRT version, GPU model and set of
profiles; its cache key holds all of them.

Calls that return a bool or None instead of raising are checked with `must`; what TensorRT logged goes into the error.
Not handled: int8 and fp8, refitting, plans for other machines, CUDA graphs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wyr_batch.bundle import Bundle, sha256_of
from wyr_batch.cache import cache_folder, find_plan, save_plan, slug, write_file
from wyr_batch.engines.base import GPU_BATCH_TOKENS, is_out_of_memory
from wyr_batch.engines.cuda import Gpu
from wyr_batch.engines.signature import INPUTS
from wyr_batch.errors import EngineError, MissingExtraError, OutOfMemory, UsageError

logger = logging.getLogger(__name__)

OLDEST = (10, 12)
BUCKET_TOKENS = (32, 64, 128, 256, 512, 1024, 2048)  # longest row of a profile; the bundle's max_tokens ends the last
LEAST_TOKENS = 8  # rows are padded to a multiple of this
BUILDER_LEVEL = 3

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """A length bucket: rows of `least` to `most` tokens, up to `rows` of them; kernels are tuned at the full shape."""

    least: int
    most: int
    rows: int

    def shapes(self, n_columns: int = 0) -> tuple[Shape, Shape, Shape]:
        """Return (smallest, usual, largest) shape [B, T] of input_ids, or [B, n_columns] of explain_ids."""
        least, most = (n_columns, n_columns) if n_columns else (self.least, self.most)
        return (1, least), (self.rows, most), (self.rows, most)


def plan_profiles(max_tokens: int, batch_tokens: int = GPU_BATCH_TOKENS) -> list[Profile]:
    """Return the length buckets of a model, shortest first; together they hold every length from 1 to `max_tokens`.

    A bucket takes as many of its longest rows as fit into the token budget, for scratch memory is sized by the largest
    shape; a batch of more, shorter rows is run in pieces.

    >>> [(p.least, p.most, p.rows) for p in plan_profiles(100, 6400)]
    [(1, 32, 200), (33, 64, 100), (65, 100, 64)]
    """
    ends = [*(tokens for tokens in BUCKET_TOKENS if tokens < max_tokens), max_tokens]
    starts = [1, *(tokens + 1 for tokens in ends[:-1])]
    return [Profile(*bucket, max(1, batch_tokens // bucket[1])) for bucket in zip(starts, ends, strict=True)]


def import_tensorrt() -> Any:
    """Return the tensorrt module. Raises: MissingExtraError if it is not there; UsageError if it is too old."""
    try:
        import tensorrt
    except ImportError:
        raise MissingExtraError("--runtime tensorrt", "tensorrt", "tensorrt") from None
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise UsageError(
            "--runtime tensorrt",
            f"TensorRT {tensorrt.__version__}",
            f"{wanted} or later",
            "Run: pip install -U 'wyr-batch[tensorrt]'",
        )
    return tensorrt


def make_log(trt: Any) -> Any:
    """Return a TensorRT logger: warnings go to ours with --verbose, the latest errors are kept in `errors`."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors = [*self.errors[-4:], msg.strip()]
            elif severity == trt.ILogger.WARNING:
                logger.debug("TensorRT: %s", msg.strip())

    return Log()


def must(result: Any, what: str, log: Any) -> Any:
    """Return a call's result, once it is seen to be neither None nor False. Raises: EngineError, OutOfMemory."""
    if result is None or not result:
        said, log.errors = "; ".join(log.errors)[:400] or "nothing more", []
        kind = OutOfMemory if is_out_of_memory(RuntimeError(said)) else EngineError
        raise kind(f"TensorRT, {what}", f"no result ({said})", "one", "Try another --runtime.")
    return result


def plan_key(trt: Any, onnx_sha256: str, gpu: Gpu, dtype: str, profiles: Sequence[Profile]) -> dict[str, Any]:
    """Return everything a plan depends on."""
    return {
        "onnx_sha256": onnx_sha256,
        "tensorrt": trt.__version__,
        "gpu": gpu.name,
        "compute_capability": ".".join(map(str, gpu.capability)),
        "dtype": dtype,
        "profiles": [[p.least, p.most, p.rows] for p in profiles],
        "builder_level": BUILDER_LEVEL,
        "tf32": False,
        "scratch_of_batch": True,
    }


def build_plan(
    trt: Any, log: Any, path: Path, profiles: Sequence[Profile], n_ranks: int, timing: bytes
) -> tuple[bytes, bytes]:
    """Build a plan on the current GPU; minutes. Without TF32: a float16 graph has parts in float32, which stay that.

    The preview feature makes a context's scratch memory as large as a batch needs, not as its profile's largest shape
    does.

    Args:
        path: ONNX file of the plain graph in that precision; external data is found beside it.
        timing: a timing cache of the same TensorRT and GPU, or nothing.
    Returns: the plan, and the timing cache with what was measured.
    Raises: EngineError with what TensorRT logged.
    """
    builder = trt.Builder(log)
    # Its number differs between 10 and 11, and 11 types every network strongly whether asked or not.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"{error.node_name()}: {error.desc()}" for error in errors)[:400]
        raise EngineError(path, f"'{said}'", "a graph TensorRT can parse", "Try another --runtime.")
    config = builder.create_builder_config()
    config.builder_optimization_level = BUILDER_LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_preview_feature(trt.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10, True)
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for name, n_columns in zip(INPUTS, (0, n_ranks), strict=True):
            shapes.set_shape(name, *profile.shapes(n_columns))
        index = config.add_optimization_profile(shapes)
        must(index >= 0, f"adding the profile of {profile.least} to {profile.most} tokens", log)
    cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        must(config.set_timing_cache(cache, ignore_mismatch=False), "setting an empty timing cache", log)
    plan = must(builder.build_serialized_network(network, config), f"building {path}", log)
    measured = must(config.get_timing_cache(), "reading the timing cache", log)
    return bytes(plan), bytes(must(measured.serialize(), "writing the timing cache", log))


def ready_plan(trt: Any, log: Any, bundle: Bundle, dtype: str, gpu: Gpu, again: str = "") -> bytes:
    """Return the plan of a bundle for a GPU, built if the cache has none that fits; says so, and why.

    The GPU must be current in the calling thread.

    Args:
        again: why the cached plan is of no use, if it has been tried.
    Raises: ModelError if the bundle has no proven file of that precision; EngineError; OutputError.
    """
    path = bundle.verified("onnx", dtype)
    profiles = plan_profiles(bundle.max_tokens)
    key = plan_key(trt, sha256_of(path), gpu, dtype, profiles)
    name = f"{bundle.name}-{dtype}"
    plan, why = (None, again) if again else find_plan(name, key)
    if plan is not None:
        return plan
    logger.info("TensorRT: building a plan of %s for %s, which takes minutes (%s)", name, gpu.name, why)
    timing_path = cache_folder() / f"timing-{slug(trt.__version__)}-{slug(gpu.name)}.cache"
    timing = timing_path.read_bytes() if timing_path.is_file() else b""
    start = time.perf_counter()
    plan, timing = build_plan(trt, log, path, profiles, len(bundle.ranks), timing)
    seconds = time.perf_counter() - start
    log.errors = []  # of tactics that were tried and did not fit
    write_file(timing_path, timing)
    saved = save_plan(name, key, plan, {"build_s": round(seconds, 1), "driver": gpu.driver, "onnx": path.name})
    logger.info("TensorRT: built %s, %.0f MB, in %.0f s", saved, len(plan) / 1e6, seconds)
    return plan
