"""safetensors files on a machine without the package of that name: as much of it as the checkpoints here need.

The format, as its documentation has it: 8 bytes of length, a JSON header of name -> dtype, shape and place, the bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}


def stand_in_for_safetensors() -> None:
    """Let `import safetensors` find this module's functions, where the package is not installed."""
    if find_spec("safetensors") is None:
        package, torch_module = ModuleType("safetensors"), ModuleType("safetensors.torch")
        vars(package).update(SafetensorError=ValueError, torch=torch_module)
        vars(torch_module).update(load_file=load_file, save_file=save_file)
        sys.modules.update({"safetensors": package, "safetensors.torch": torch_module})


def load_file(path: Path) -> dict[str, Any]:
    """Return the tensors of a file."""
    import torch

    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype = getattr(torch, DTYPES[entry["dtype"]])
        first, end = entry["data_offsets"]
        part = content[start + first : start + end]
        flat = torch.frombuffer(part, dtype=dtype) if part else torch.empty(0, dtype=dtype)
        tensors[name] = flat.view(entry["shape"])
    return tensors


def save_file(tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors of the CPU."""
    import torch

    words = {getattr(torch, name): word for word, name in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, at = [], 0
    for name, tensor in tensors.items():
        part = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        shape = list(tensor.shape)
        header[name] = {"dtype": words[tensor.dtype], "shape": shape, "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join((len(text).to_bytes(8, "little"), text, *parts)))
