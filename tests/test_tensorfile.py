"""A damaged safetensors file is an error that names it."""

from __future__ import annotations

from pathlib import Path

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
