"""The encoder's steps as this device computes them fastest: each of torch or of Triton, where that is right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wyr_batch.kernels import plain
from wyr_batch.kernels.choose import LIMITS, Timer, device_name, fastest, gpu_seconds
from wyr_batch.kernels.plain import Attend, Norm, Padding, Steps

logger = logging.getLogger(__name__)

_WORDS = 100  # of the vocabulary that is looked up; any will do


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
        dtype: of products. Kernels with products in them are for halves.
        timed: rows and tokens of the batch that is timed.
    Raises: ImportError without Triton.
    """
    from wyr_batch.kernels import attention, rowwise

    width = n_heads * head_size
    key = device_name(device), dtype, n_heads, head_size, n_raised
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    def pick(name: str, ways: Mapping[str, Callable[..., Any]], case: Callable[[int, int], tuple[Any, ...]]) -> str:
        return fastest(name, ways, [case(*timed), case(3, 7), case(1, 1)], LIMITS[dtype], key, timer)

    norm = Norm(normal(width, dtype=torch.float32), normal(width, dtype=torch.float32), 1e-12)
    words = normal(_WORDS, width, dtype=torch.float32)

    def batch(rows: int, n_tokens: int) -> tuple[Any, ...]:
        ids = torch.randint(_WORDS, (rows, n_tokens), generator=generator).to(device, torch.int32)
        mask = torch.rand(rows, n_tokens, generator=generator).to(device)
        mask[-1] = 0
        return ids, words, 1, mask, norm, dtype

    def sums(rows: int, n_tokens: int) -> tuple[Any, ...]:
        residual = normal(rows, n_tokens, width, dtype=torch.float32)
        residual[-1] = 0  # what a mask of zeros leaves
        update = normal(rows, n_tokens, width)
        update[-1] = 0
        return residual, update, norm, dtype

    def packed(rows: int, n_tokens: int) -> tuple[Any, ...]:
        angles = torch.rand(n_tokens, head_size // 2, generator=generator) * n_tokens
        vectors = normal(rows, n_tokens, 3, n_heads, head_size)
        vectors[:, :, 0] *= head_size**-0.5
        return vectors, angles.cos().to(device), angles.sin().to(device), padding_of(rows, n_tokens)

    def padding_of(rows: int, n_tokens: int) -> Padding | None:
        """Some rows of the small cases are shorter; all of the timed one are full."""
        if (rows, n_tokens) == timed:
            return None
        lengths = (n_tokens - torch.arange(rows, device=device)).clamp(min=1)
        return Padding.of(torch.arange(n_tokens, device=device) < lengths[:, None])

    weight = normal(2 * n_raised, width) * width**-0.5
    embed_norms = {"torch": plain.embed_norm, "triton": rowwise.embed_norm}
    add_norms = {"torch": plain.add_norm, "triton": rowwise.add_norm}
    mixers: dict[str, Attend] = {
        "torch": plain.attend,
        "torch, rotated by triton": partial(plain.attend, rotation=rowwise.rotate),
    }
    swiglus: dict[str, plain.Swiglu] = {"torch": plain.swiglu}
    if dtype != torch.float32:
        mixers |= {f"triton {_shown(tile)}": partial(attention.attend, tile=tile) for tile in attention.TILES}
        swiglus |= _swiglus()
    return Steps(
        embed_norms[pick("embedding and layer norm", embed_norms, batch)],
        add_norms[pick("add and layer norm", add_norms, sums)],
        mixers[pick("attention", {name: _compared(mixer) for name, mixer in mixers.items()}, packed)],
        swiglus[pick("SwiGLU", swiglus, lambda rows, n_tokens: (normal(rows, n_tokens, width), weight))],
    )


def _compared(mixer: Attend) -> Attend:
    """Return attention that leaves its input alone, and gives 0 at padding."""

    def mix(packed: Tensor, cos: Tensor, sin: Tensor, padding: Padding | None) -> Tensor:
        mixed = mixer(packed.clone(), cos, sin, padding)
        if padding is None:
            return mixed
        return mixed * padding.valid.unsqueeze(-1)

    return mix


def _swiglus() -> dict[str, plain.Swiglu]:
    """Return the kernel with each of its tiles; nothing with a Triton before 3.4, which describes no tiles."""
    try:
        from wyr_batch.kernels import swiglu
    except ImportError as error:
        logger.info("SwiGLU: this Triton is too old for the kernel: %s", error)
        return {}
    return {f"triton {_shown(tile)}": partial(swiglu.swiglu, tile=tile) for tile in swiglu.TILES}


def _shown(tile: tuple[int, ...]) -> str:
    return "x".join(map(str, tile))
