"""The encoder's steps as this device computes them fastest: each of torch or of Triton, where that is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wyr_batch.kernels import plain
from wyr_batch.kernels.choose import LIMITS, Timer, device_name, fastest, gpu_seconds
from wyr_batch.kernels.plain import Rotate, Steps


def chosen_steps(
    n_heads: int,
    head_size: int,
    n_raised: int,
    dtype: torch.dtype,
    device: torch.device,
    timer: Timer = gpu_seconds,
    timed: tuple[int, int] = (128, 256),
) -> Steps:
    """Compare and time each step, and return the fastest that are right.

    Args:
        n_raised: features between the two products of the feed-forward.
        dtype: of products.
        timed: rows and tokens of the batch that is timed.
    Raises: ImportError without Triton.
    """
    from wyr_batch.kernels import rowwise, swiglu

    width = n_heads * head_size
    key = device_name(device), dtype, n_heads, head_size, n_raised
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    def pick(name: str, ways: Mapping[str, Callable[..., Any]], case: Callable[[int, int], tuple[Any, ...]]) -> str:
        return fastest(name, ways, [case(*timed), case(3, 7), case(1, 1)], LIMITS[dtype], key, timer)

    def sums(rows: int, n_tokens: int) -> tuple[Any, ...]:
        residual = normal(rows, n_tokens, width, dtype=torch.float32)
        residual[-1] = 0  # what a mask of zeros leaves
        update = normal(rows, n_tokens, width)
        update[-1] = 0
        ends = (normal(width, dtype=torch.float32) for _ in range(2))
        return residual, update, *ends, 1e-12, dtype

    def packed(rows: int, n_tokens: int) -> tuple[Any, ...]:
        angles = torch.rand(n_tokens, head_size // 2, generator=generator) * n_tokens
        return normal(rows, n_tokens, 3, n_heads, head_size), angles.cos().to(device), angles.sin().to(device)

    weight = normal(2 * n_raised, width) * width**-0.5
    add_norms = {"torch": plain.add_norm, "triton": rowwise.add_norm}
    rotations: dict[str, Rotate] = {"torch": plain.rotate, "triton": rowwise.rotate}
    swiglus: dict[str, plain.Swiglu] = {"torch": plain.swiglu}
    for tile in swiglu.TILES:
        swiglus[f"triton {'x'.join(map(str, tile[:3]))}"] = partial(swiglu.swiglu, tile=tile)
    turned = {name: partial(_on_a_copy, rotation) for name, rotation in rotations.items()}
    return Steps(
        add_norms[pick("add and layer norm", add_norms, sums)],
        rotations[pick("rotary positions", turned, packed)],
        swiglus[pick("SwiGLU", swiglus, lambda rows, n_tokens: (normal(rows, n_tokens, width), weight))],
    )


def _on_a_copy(rotation: Rotate, packed: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    copy = packed.clone()
    rotation(copy, cos, sin)
    return copy
