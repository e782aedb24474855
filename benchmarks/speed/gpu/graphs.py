"""A part of the GPU kit: a batch of one shape recorded as a CUDA graph, against the same batch launched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.kit import random_batch
from benchmarks.speed.gpu.machine import BUDGET_TOKENS, Machine, Skipped, need_torch, tried


def graphs(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time a full batch and a small one; what a graph saves is the host's work."""
    torch = need_torch()
    if not machine.on_gpu:
        raise Skipped("no GPU")
    with machine.engines("full_size", "torch", machine.half, in_flight=1) as engines, torch.inference_mode():
        module = partial(engines[0]._model.module, padded=False)  # type: ignore[attr-defined]
        for n_rows in (2,) if machine.quick else (BUDGET_TOKENS // 256, 8):
            batch = random_batch(n_rows, machine.window_tokens, len(engines[0].bundle.ranks))
            yield f"{n_rows} rows", tried(replayed, machine, module, batch)


def replayed(machine: Machine, module: Any, batch: tuple[Any, Any]) -> dict[str, float]:
    """Record and replay a batch; results must be those of the batch that is launched."""
    torch = need_torch()
    there = [torch.from_numpy(values).to(machine.device) for values in batch]
    wanted = module(*there)
    side = torch.cuda.Stream(machine.device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            module(*there)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = module(*there)
    graph.replay()
    machine.wait()
    return {
        "launched_s": machine.seconds(lambda: module(*there)),
        "replayed_s": machine.seconds(graph.replay),
        "mask_difference_max": (found.mask - wanted.mask).abs().max().item(),
    }
