"""Safetensors files read and written here are those of the safetensors package, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wyr_batch.errors import ModelError
from wyr_batch.models.tensorfile import DTYPES, read_tensors, write_tensors


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {
        f"x{i}.{name}": torch.randint(0, 2, (i, 3), generator=generator).to(dtype)
        for i, (name, dtype) in enumerate(DTYPES.items())
    }
    tall = torch.randn(5, 4, generator=generator).t()
    return {**made, "scalar": torch.tensor(7), "tall": tall, "größe": torch.ones(2)}


def test_files_are_the_packages(tmp_path: Path) -> None:
    tensors = some_tensors()
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, tmp_path / "theirs", metadata={"format": "pt"})
    write_tensors(tensors, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    found, wanted = read_tensors(tmp_path / "theirs"), load_file(tmp_path / "ours")
    assert found.keys() == wanted.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
        torch.testing.assert_close(wanted[name], tensor, rtol=0, atol=0)


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
