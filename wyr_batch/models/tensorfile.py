"""Tensors by name in a safetensors file: a length, a JSON header, and the numbers. Needs nothing but torch.

    8 bytes      length of the header, little-endian
    header       {"__metadata__": {...}, NAME: {"dtype": "F32", "shape": [...], "data_offsets": [start, end]}, ...}
    numbers      little-endian, row by row

What is written has the layout of the safetensors package, byte for byte. Nothing in such a file is ever executed.
Source: the format's description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wyr_batch.errors import ModelError
from wyr_batch.fields import Fields, parse_json
from wyr_batch.files import shown_path

# In the order in which the package writes them.
DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU. Raises: ModelError if it is no such file, or is cut."""
    try:
        content = bytearray(path.read_bytes())
        n_header = int.from_bytes(content[:8], "little")
        fields = parse_json(bytes(content[8 : 8 + n_header]))
        header = Fields(fields, shown_path(path), ModelError, "Is it a safetensors file?")
        names = [name for name in header.content if name != _METADATA]
        return {name: _tensor(content, 8 + n_header, header.object(name)) for name in names}
    except (OSError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{shown_path(path)}: got '{error}', expected a safetensors file.") from None


def _tensor(content: bytearray, first: int, entry: Fields) -> Tensor:
    """Return one tensor; its numbers are content[first + start : first + end]."""
    dtype, shape = entry.text("dtype", one_of=tuple(DTYPES)), entry.wholes("shape")
    offsets = entry.wholes("data_offsets")
    start, end = offsets if len(offsets) == 2 else (-1, -1)
    kind, n = DTYPES[dtype], math.prod(shape)
    if end - start != n * kind.itemsize or min(start, *shape, 0) < 0 or first + end > len(content):
        raise ValueError(f"{len(content) - first} bytes of numbers and {start} to {end} for {dtype} {shape}")
    if not n:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(content, dtype=kind, count=n, offset=first + start).reshape(shape).clone()


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any device; the largest number types come first, so that each is aligned."""
    names = sorted(tensors, key=lambda name: (list(DTYPES).index(_NAMES[tensors[name].dtype]), name))
    header: dict[str, object] = {_METADATA: {"format": "pt"}}
    at = 0
    for name in names:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().flatten()
            file.write(flat.view(torch.uint8).numpy().tobytes())
