"""Tensors of a checkpoint: found in a folder, loaded with every name accounted for, and written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.bundle import stays_inside
from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, write_whole
from wyr_batch.errors import MissingExtraError, ModelError
from wyr_batch.models.tensorfile import read_tensors, write_tensors

HUB_FILES = ("config.json", "*.safetensors*", "pytorch_model.bin")


def folder_from_hub(name: str, files: tuple[str, ...] = HUB_FILES) -> Path:
    """Return the folder that a model of the Hugging Face Hub has been downloaded to.

    Args:
        files: patterns of those to get; no code is among them.
    Raises: ModelError; MissingExtraError without huggingface_hub.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError(f"model {name}", "huggingface_hub", "train") from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ModelError(name, f"'{first}'", "a directory or a model on the Hugging Face Hub") from None


def folder_tensors(folder: Path, pickled: bool = True) -> tuple[Path, dict[str, Tensor]]:
    """Return the file that holds a model's tensors, or the index of several, and the tensors.

    Args:
        pickled: take pytorch_model.bin as well, of which tensors alone are read.
    Raises: ModelError.
    """
    whole, index, old = (
        folder / name for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    )
    if exists(whole, ModelError):
        return whole, read_tensors(whole)
    if exists(index, ModelError):
        places = Fields.read(index, ModelError, "Do not trust this model, or get it again.").object("weight_map")
        for key in places.content:
            if not stays_inside(places.text(key)):
                raise places.wrong(key, "the name of a file in the same folder")
        names = sorted(set(places.content.values()))
        return index, {k: v for name in names for k, v in read_tensors(folder / name).items()}
    if not pickled:
        raise ModelError(folder, f"no {whole.name}", "it beside config.json", "Save the model again, as safetensors.")
    if not exists(old, ModelError):
        raise ModelError(folder, f"neither {whole.name} nor {old.name}", "one of them beside config.json")
    try:
        tensors: dict[str, Tensor] = torch.load(old, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(
            old, f"'{str(error).strip().splitlines()[0]}'", "tensors and nothing else", "Do not trust it."
        ) from None
    return old, tensors


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], path: Path, prefix: str = "") -> None:
    """Load tensors into a model. Raises: ModelError naming one that is missing, unknown or of another shape.

    Args:
        path: of the file, for the message.
        prefix: of the model's own names, which the file's do not have.
    """
    expected = {key.removeprefix(prefix): value for key, value in model.state_dict().items()}
    for key in sorted(set(expected) | set(tensors)):
        if key not in tensors:
            raise ModelError(f"{path}, tensor {key}", "nothing", f"shape {tuple(expected[key].shape)}")
        if key not in expected:
            raise ModelError(f"{path}, tensor {key}", "a tensor of that name", "none", "Is it another model?")
        if tensors[key].shape != expected[key].shape:
            raise ModelError(f"{path}, tensor {key}", f"shape {tuple(tensors[key].shape)}", tuple(expected[key].shape))
    model.load_state_dict({f"{prefix}{key}": value for key, value in tensors.items()})


def save_tensors(tensors: Mapping[str, Tensor], path: Path, half: bool) -> None:
    """Write tensors; `half` stores float16, but for frequencies, which multiply positions up to the thousands."""
    small = {k: v.half() if half and not k.endswith("inv_freq") else v for k, v in tensors.items()}
    write_tensors(small, path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole. Raises: OutputError."""
    write_whole(path, json.dumps(content, indent=2) + "\n")
