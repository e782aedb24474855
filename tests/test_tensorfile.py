"""A damaged safetensors file is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from wyr_batch.errors import ModelError
from wyr_batch.models.tensorfile import read_tensors, write_tensors


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "shape", "offset", "missing"])
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors({"a": torch.arange(12.0).view(3, 4)}, path)
    content = path.read_bytes()
    changed = {
        "cut": content[:-1],
        "header": content[:9] + b"!" + content[10:],
        "empty": b"",
        "shape": content.replace(b"[3,4]", b"[3,5]"),
        "offset": content.replace(b"[0,48]", b"[4,52]"),
    }
    path.write_bytes(changed[damage]) if damage in changed else path.unlink()
    with pytest.raises(ModelError, match=r"x\.safetensors: got .*expected a safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize(
    "entry",
    [3, {}, {"dtype": 1, "shape": [1], "data_offsets": [0, 4]}, {"dtype": "F32", "shape": [-1, -1]}]
    + [{"dtype": "F32", "shape": shape, "data_offsets": [0, 4]} for shape in ([-1, -1], [1.0], 1)]
    + [{"dtype": "F32", "shape": [1], "data_offsets": at} for at in ([0], [0, 4, 8], ["0", "4"], [-4, 0])]
    + [{"dtype": "F32", "shape": [0, 10**30], "data_offsets": [0, 0]}],
    ids=str,
)
def test_tensor_of_another_shape_is_a_model_error(entry: Any, tmp_path: Path) -> None:
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        read_tensors(path)
