"""A part of the GPU kit: what each step towards a faster batch brings, one at a time.

All are measured against the published size in the form of a GPU, in plain torch: rows without padding and without a
mask, one product for query, key and value, nothing compiled, no kernels, one stream. A change is a copy that computes
the same in another way, faster or slower. It is timed in alternation with that form on the same batch of full rows, and
its results are compared. Last, batches that follow each other on an engine, one and two at a time.
"""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.kit import alternated, random_batch
from benchmarks.published_size import CLASSES
from benchmarks.speed.gpu.engines import feed
from benchmarks.speed.gpu.machine import BUDGET_TOKENS, Machine, Skipped, need_torch, tried
from benchmarks.speed.gpu.models import gpu_module, loaded
from wyr_batch.engines.base import Engine
from wyr_batch.tokens.kmers import PAD_ID

Run = Callable[[Any, Any], Any]  # (input_ids, explain_ids) -> FusedOutput
ROUNDS = 5
N_TILES = 3  # of each kernel that has several


def changes(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time every change, while an engine is open: it holds torch's switches as a run has them."""
    torch = need_torch()
    with machine.engines("full_size", "torch", machine.half) as engines, torch.inference_mode():
        (engine,) = engines
        n_rows = 2 if machine.quick else BUDGET_TOKENS // 256
        batch = random_batch(n_rows, machine.window_tokens, len(CLASSES))
        there = tuple(torch.from_numpy(values).to(machine.device) for values in batch)
        module = gpu_module(machine)
        if machine.on_gpu:
            chosen = engine._model.module  # type: ignore[attr-defined]
            yield "ways the engine chose", chosen.ways
            yield "as the engine chose", tried(compare, machine, module, lambda *_: full_rows(chosen), there)
        for name, change in all_changes().items():
            yield name, tried(compare, machine, module, change, there)
        yield "two batches in flight", tried(two_in_flight, machine, engine, batch)


def full_rows(module: Any) -> Run:
    """Return a module as a function of batches without padding."""
    return partial(module, padded=False)


def compare(machine: Machine, module: Any, change: Callable[[Machine, Any], Run], batch: tuple[Any, Any]) -> Any:
    """Time a change against the module as it is; `speedup` above 1 is faster."""
    plain, changed = full_rows(module), change(machine, module)
    wanted, found = plain(*batch), changed(*batch)
    machine.wait()  # a change may have a stream of its own
    n_tokens = wanted.mask.shape[1]
    same = (wanted.explained_ids == found.explained_ids).float().mean().item()
    pairs = {"mask": (wanted.mask, found.mask[:, :n_tokens]), "masked_probs": (wanted.masked_probs, found.masked_probs)}
    differences = {name: (one - other).abs() for name, (one, other) in pairs.items()}

    def waited(run: Run) -> Callable[[], object]:
        return lambda: (run(*batch), machine.wait())

    timings = alternated({"as it is": waited(plain), "changed": waited(changed)}, 1 if machine.quick else ROUNDS)
    as_it_is, now = ([timing.wall_s for timing in rounds] for rounds in timings.values())
    return {
        "as_it_is_s": as_it_is,
        "changed_s": now,
        "speedup": statistics.median(as_it_is) / statistics.median(now),
        "labels_that_agree": same,
        "differences": {name: {"max": d.max().item(), "mean": d.mean().item()} for name, d in differences.items()},
    }


def as_on_a_cpu(machine: Machine, module: Any) -> Run:
    """The form that the CPU computes, both directions of the LSTM in one."""
    from wyr_batch.models.fused import Fused
    from wyr_batch.models.precision import in_precision

    explanandum, explainer, _ = loaded(machine)
    explainer.prepare_for_gpu()
    run: Run = in_precision(Fused(explanandum, explainer).eval(), machine.half).to(machine.device)
    return run


def masked(machine: Machine, module: Any) -> Run:
    """An attention mask, which full rows do not need."""
    run: Run = module
    return run


def padded(machine: Machine, module: Any) -> Run:
    """Rows padded to a multiple of 8, and so an attention mask."""
    torch = need_torch()

    def run(ids: Any, asked: Any) -> Any:
        return module(torch.nn.functional.pad(ids, (0, -ids.shape[1] % 8), value=PAD_ID), asked)

    return run


def three_products(machine: Machine, module: Any) -> Run:
    """Query, key and value each by a product of its own."""
    other = copy.deepcopy(module)
    for layer in other.encoder.layers:
        layer.attend = partial(attend_apart, layer)
    return full_rows(other)


def attend_apart(layer: Any, x: Any, cos: Any, sin: Any, padding: Any, attend: Any) -> Any:
    """As the layer's own attention, from three products; rows without padding."""
    torch = need_torch()
    half_cos, half_sin = (table[:, None].to(x.dtype) for table in (cos, sin))

    def turned(part: Any) -> Any:
        first, second = part.chunk(2, dim=-1)
        return torch.cat((first * half_cos - second * half_sin, second * half_cos + first * half_sin), dim=-1)

    pairs = zip(layer.packed.weight.chunk(3), layer.packed.bias.chunk(3), strict=True)
    products = [torch.nn.functional.linear(x, *pair) for pair in pairs]
    query, key, value = (part.unflatten(-1, (layer.n_heads, layer.head_size)) for part in products)
    parts = (part.transpose(1, 2) for part in (turned(query), turned(key), value))
    mixed = torch.nn.functional.scaled_dot_product_attention(*parts, scale=1.0)
    return mixed.transpose(1, 2).flatten(2)


def cudnn_allowed(machine: Machine, module: Any) -> Run:
    """torch may choose cuDNN's attention, as it does where no engine switches it off."""
    switch = need_torch().backends.cuda.enable_cudnn_sdp

    def run(ids: Any, asked: Any) -> Any:
        switch(True)
        try:
            return module(ids, asked, padded=False)
        finally:
            switch(False)

    return run


def directions_apart(machine: Machine, module: Any) -> Run:
    """The two directions of the Explainer's LSTM one after the other, not as one of twice the width."""
    other = copy.deepcopy(module)
    other.explainer.paired = None
    return full_rows(other)


def on_side_stream(machine: Machine, module: Any) -> Run:
    """The Explainer's features beside the plain pass, as the engine enqueues them; on a CPU, after it."""
    if not machine.on_gpu:
        return partial(module, padded=False, aside=lambda work: work)
    torch = need_torch()
    from wyr_batch.engines.torch import _Slot

    slot = _Slot(torch, torch.device(machine.device))

    def run(ids: Any, asked: Any) -> Any:
        with torch.cuda.stream(slot.stream):
            return module(ids, asked, padded=False, aside=slot.aside)

    return run


def compiled(machine: Machine, module: Any) -> Run:
    """The encoder's layers through torch.compile, the LSTM outside."""
    from wyr_batch.models.gpu.fused import Compiled

    torch, other = need_torch(), copy.deepcopy(module)
    compiler = partial(torch.compile, backend="eager") if machine.quick else torch.compile
    other.encoder.way = Compiled(other.encoder.run_layers, compiler)
    return full_rows(other)


def with_kernels(steps: Callable[[], dict[str, Any]], lstm: bool = False) -> Callable[[Machine, Any], Run]:
    """Some of the encoder's steps, and the LSTM, by Triton."""

    def change(machine: Machine, module: Any) -> Run:
        need_triton(machine)
        from wyr_batch.kernels.plain import PLAIN

        other = copy.deepcopy(module)
        other.encoder.way = partial(other.encoder.run_layers, steps=PLAIN._replace(**steps()))
        other.explainer.by_kernel = lstm
        return full_rows(other)

    return change


def need_triton(machine: Machine) -> None:
    """Raise Skipped unless kernels can be run: compiled on a GPU, interpreted on a CPU if that is asked for."""
    from wyr_batch.kernels.choose import triton_version

    if triton_version() is None:
        raise Skipped("no package triton")
    if not machine.on_gpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise Skipped("no GPU to compile kernels for; TRITON_INTERPRET=1 runs them on a CPU")


def norms() -> dict[str, Any]:
    from wyr_batch.kernels import rowwise

    return {"embed_norm": rowwise.embed_norm, "add_norm": rowwise.add_norm}


def rotary() -> dict[str, Any]:
    from wyr_batch.kernels import plain, rowwise

    return {"attend": partial(plain.attend, rotation=rowwise.rotate)}


def attention(number: int) -> dict[str, Any]:
    from wyr_batch.kernels import attention

    return {"attend": partial(attention.attend, tile=attention.TILES[number])}


def swiglu(number: int) -> dict[str, Any]:
    from wyr_batch.kernels import swiglu

    return {"swiglu": partial(swiglu.swiglu, tile=swiglu.TILES[number])}


def two_in_flight(machine: Machine, engine: Engine, batch: tuple[Any, Any]) -> dict[str, float]:
    """Return seconds a batch, copies included, of batches one at a time and of two in flight from one thread."""
    n_batches = 2 if machine.quick else 8
    one, two = (machine.seconds(lambda room=room: feed(engine, batch, n_batches, room)) / n_batches for room in (1, 2))
    return {"one_s": one, "two_s": two, "speedup": one / two, "reads_per_s": len(batch[0]) / two}


def all_changes() -> dict[str, Callable[[Machine, Any], Run]]:
    """Return every change by its name."""
    found: dict[str, Callable[[Machine, Any], Run]] = {
        "as the CPU computes it": as_on_a_cpu,
        "kernels: layer norms": with_kernels(norms),
        "kernels: rotary positions": with_kernels(rotary),
    }
    for number in range(N_TILES):
        found[f"kernels: attention, tile {number}"] = with_kernels(partial(attention, number))
        found[f"kernels: SwiGLU, tile {number}"] = with_kernels(partial(swiglu, number))
    return {
        **found,
        "kernels: LSTM": with_kernels(dict, lstm=True),
        "kernels: all": with_kernels(lambda: {**norms(), **attention(0), **swiglu(0)}, lstm=True),
        "Explainer's features on a side stream": on_side_stream,
        "an attention mask": masked,
        "rows padded to a multiple of 8": padded,
        "three products for query, key and value": three_products,
        "directions of the LSTM apart": directions_apart,
        "cuDNN's attention allowed": cudnn_allowed,
        "encoder compiled": compiled,  # last, for it takes longest
    }
