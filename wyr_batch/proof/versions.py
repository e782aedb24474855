"""Which version of a runtime that can use a GPU is here: part of every proof, and asked before one is chosen."""

from __future__ import annotations

from functools import cache

from wyr_batch.errors import WyrError
from wyr_batch.proof.apart import apart


def runtime_version(runtime: str) -> str:
    """Return the version of a runtime that can use a GPU. Raises: MissingExtraError, UsageError if it cannot."""
    if runtime == "tensorrt":
        from wyr_batch.engines.tensorrt_plan import import_tensorrt

        return str(import_tensorrt().__version__)
    if runtime == "onnx":
        from wyr_batch.engines.onnx_cuda import import_onnxruntime

        return str(import_onnxruntime().__version__)
    from wyr_batch.engines.torch import gpu_version

    return gpu_version()


def version_apart(runtime: str) -> str:
    """As `runtime_version`, without loading the runtime here. Raises: ModelError as well, if it cannot be loaded."""
    found = _asked_apart(runtime)
    if isinstance(found, WyrError):
        raise found
    return found


@cache
def _asked_apart(runtime: str) -> str | WyrError:
    try:
        return apart(f"--runtime {runtime}", runtime_version, runtime)
    except WyrError as error:
        return error
