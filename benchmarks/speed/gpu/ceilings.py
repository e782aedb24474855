"""A part of the GPU kit: what the device reaches at this model's own shapes, each operation by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.speed.gpu.machine import BUDGET_TOKENS, Machine, need_torch, tried

PRODUCTS = ((512, 1536), (512, 512), (512, 4096), (2048, 512))  # (K, N): query, key and value; output; up; down
HEADS, HEAD_SIZE = 16, 32
LENGTHS = (251, 256)
LSTM_ROWS = (64, 128, 256, 512, 1024)


def ceilings(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time matrix products, attention by kernel, the Explainer's LSTM and copies."""
    torch = need_torch()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as engines have it
    yield "products", products(machine, machine.half)
    yield "products in float32", products(machine, "float32")
    kernels: dict[str, Any] = {}
    for n_tokens in (9,) if machine.quick else LENGTHS:
        for masked in (False, True):
            for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
                key = f"{name}, {'mask' if masked else 'no mask'}, {n_tokens} tokens"
                kernels[key] = tried(attention, machine, name, masked, n_tokens)
                yield "attention", kernels
    rows: list[Any] = []
    for n_rows in (2,) if machine.quick else LSTM_ROWS:
        rows.append({"rows": n_rows, **tried(lstm, machine, n_rows)})
        yield "lstm", rows
    yield "copies", tried(copies, machine)


def products(machine: Machine, dtype: str) -> dict[str, Any]:
    """Time the products of an encoder layer; all together, in half precision, they are what `mfu_of_measured` is of."""
    torch = need_torch()
    n_rows = 64 if machine.quick else BUDGET_TOKENS
    found: dict[str, Any] = {}
    flop = seconds = 0.0
    for n_in, n_out in PRODUCTS:
        a = torch.randn(n_rows, n_in, device=machine.device).to(getattr(torch, dtype))
        b = torch.randn(n_out, n_in, device=machine.device).to(getattr(torch, dtype))
        took = machine.seconds(lambda a=a, b=b: torch.nn.functional.linear(a, b))
        found[f"{n_rows} x {n_in} x {n_out}"] = {"seconds": took, "flop_per_s": 2 * n_rows * n_in * n_out / took}
        flop, seconds = flop + 2 * n_rows * n_in * n_out, seconds + took
    if dtype == machine.half:
        machine.note("peak", flop / seconds)
    return {**found, "together": {"seconds": seconds, "flop_per_s": flop / seconds}}


def attention(machine: Machine, kernel: str, masked: bool, n_tokens: int) -> dict[str, Any]:
    """Time one kernel of scaled-dot-product attention, and its first call in this thread and shape.

    A kernel that does not take the mask, or the machine, is an error of torch's, which becomes the result.
    """
    torch = need_torch()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    n_rows = 2 if machine.quick else BUDGET_TOKENS // 256
    half = getattr(torch, machine.half)
    shape = (n_rows, HEADS, n_tokens, HEAD_SIZE)
    query, key, value = (torch.randn(shape, device=machine.device).to(half) for _ in range(3))
    bias = torch.zeros(n_rows, 1, 1, n_tokens, device=machine.device, dtype=half) if masked else None
    only: AbstractContextManager[Any] = sdpa_kernel(getattr(SDPBackend, kernel))
    with only, torch.inference_mode():

        def attend() -> None:
            torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)

        first_s = timed_s(machine, attend)
        return {"first_s": first_s, "seconds": machine.seconds(attend)}


def lstm(machine: Machine, n_rows: int) -> dict[str, Any]:
    """Time the Explainer's features of the published size, both directions in one LSTM and apart, in float32."""
    torch = need_torch()
    from wyr_batch.models.lstm import LstmConfig, LstmExplainer

    n_tokens = 9 if machine.quick else 256
    ids = torch.randint(6, 4102, (n_rows, n_tokens), device=machine.device)
    valid = torch.ones_like(ids, dtype=torch.bool)
    found: dict[str, Any] = {}
    for name in ("apart", "one"):
        explainer = LstmExplainer(LstmConfig(num_classes=8)).eval()
        if name == "one":
            explainer.pair_directions()
        explainer.to(machine.device)
        with torch.inference_mode():
            found[f"directions_{name}_s"] = machine.seconds(lambda model=explainer: model.features(ids, valid))
    wide = torch.nn.LSTM(200, 80, 2, batch_first=True).to(machine.device).eval()
    x = torch.randn(n_rows, n_tokens, 200, device=machine.device)
    with torch.inference_mode():
        return {**found, "two_layers_of_torch_s": machine.seconds(lambda: wide(x))}


def copies(machine: Machine) -> dict[str, Any]:
    """Time copies between pinned host memory and the device, GB/s."""
    torch = need_torch()
    n_bytes = (1 << 16) if machine.quick else (1 << 28)
    host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=machine.on_gpu)
    there = torch.empty(n_bytes, dtype=torch.uint8, device=machine.device)
    to_device = machine.seconds(lambda: there.copy_(host, non_blocking=True))
    to_host = machine.seconds(lambda: host.copy_(there, non_blocking=True))
    return {"to_device_gb_per_s": n_bytes / 1e9 / to_device, "to_host_gb_per_s": n_bytes / 1e9 / to_host}


def timed_s(machine: Machine, function: Callable[[], object]) -> float:
    """Return the seconds of a single call."""
    machine.wait()
    start = time.perf_counter()
    function()
    machine.wait()
    return time.perf_counter() - start
