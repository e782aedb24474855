"""Tensors by name in a safetensors file, read and written by the package of that name; nothing in it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from torch import Tensor

from wyr_batch.checks.files import reason_of, shown_path, write_error
from wyr_batch.errors import MissingExtraError, ModelError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises: ModelError if it is no such file, or is cut; MissingExtraError without the package.
    """
    package = _safetensors()
    try:
        tensors: dict[str, Tensor] = package.torch.load_file(path)
    except (OSError, ValueError, KeyError, package.SafetensorError) as error:
        got = reason_of(error)
        raise ModelError(shown_path(path), f"'{got}'", "a safetensors file", "Get it again.") from None
    return tensors


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any device. Raises: ModelError if the file cannot be written; MissingExtraError."""
    package = _safetensors()
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        package.torch.save_file(whole, path, metadata={"format": "pt"})
    except (OSError, package.SafetensorError) as error:
        raise write_error(path, error, ModelError) from None


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise MissingExtraError("a checkpoint", "safetensors", "export") from None
    return safetensors
