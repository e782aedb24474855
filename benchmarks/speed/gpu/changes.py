"""A part of the GPU kit: what each idea for a faster batch would bring, one at a time against the module as it is.

A change is a copy of the module that computes the same in another way. Each is timed in alternation with the module as
it is, on the same batch of full rows, and its results are compared: so that it is known which of them pay before they
are built into the package. Last, batches that follow each other: from two threads, and from one that enqueues the next
batch before it waits for the last.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from benchmarks.kit import alternated, random_batch
from benchmarks.speed.gpu.machine import BUDGET_TOKENS, Machine, need_torch, tried
from wyr_batch.tokens.kmers import PAD_ID

Run = Callable[[Any, Any], Any]  # (input_ids, explain_ids) -> FusedOutput
ROUNDS = 5


def changes(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time every change."""
    torch = need_torch()
    with machine.engines("full_size", "torch", machine.half, in_flight=1) as engines, torch.inference_mode():
        module = engines[0]._model.module  # type: ignore[attr-defined]
        n_rows = 2 if machine.quick else BUDGET_TOKENS // 256
        ids, asked = random_batch(n_rows, machine.window_tokens, len(engines[0].bundle.ranks))
        there = torch.from_numpy(ids).to(machine.device), torch.from_numpy(asked).to(machine.device)
        for name, change in CHANGES.items():
            yield name, tried(compare, machine, module, change, there)
        yield "one thread, two batches enqueued", tried(two_slots, machine, module, (ids, asked))


def compare(machine: Machine, module: Any, change: Callable[[Machine, Any], Run], batch: tuple[Any, Any]) -> Any:
    """Time a change against the module as it is; `speedup` above 1 is faster."""
    changed = change(machine, module)
    wanted, found = module(*batch), changed(*batch)
    n_tokens = wanted.mask.shape[1]
    same = (wanted.explained_ids == found.explained_ids).float().mean().item()
    difference = (wanted.mask - found.mask[:, :n_tokens]).abs()

    def waited(run: Run) -> Callable[[], object]:
        return lambda: (run(*batch), machine.wait())

    timings = alternated({"as it is": waited(module), "changed": waited(changed)}, 1 if machine.quick else ROUNDS)
    as_it_is, now = ([timing.wall_s for timing in rounds] for rounds in timings.values())
    return {
        "as_it_is_s": as_it_is,
        "changed_s": now,
        "speedup": statistics.median(as_it_is) / statistics.median(now),
        "labels_that_agree": same,
        "mask_difference": {"max": difference.max().item(), "mean": difference.mean().item()},
    }


def padded(machine: Machine, module: Any) -> Run:
    """Rows padded to a multiple of 8, as batches are now."""
    torch = need_torch()

    def run(ids: Any, asked: Any) -> Any:
        return module(torch.nn.functional.pad(ids, (0, -ids.shape[1] % 8), value=PAD_ID), asked)

    return run


def with_attention(*, joined: bool, masked: bool) -> Callable[[Machine, Any], Run]:
    """One product for query, key and value with the scale folded in; no attention mask, which full rows do not need."""

    def change(machine: Machine, module: Any) -> Run:
        other = copy.deepcopy(module)
        for layer in other.explanandum.encoder.encoder.layer:
            layer.attention.self = attention_of(layer.attention.self, joined, masked)
        run: Run = other
        return run

    return change


def attention_of(old: Any, joined: bool, masked: bool) -> Any:
    """Return a module that computes what the encoder's attention does."""
    torch = need_torch()
    from wyr_batch.models.encoder import rotate

    class Attention(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rotary_embeddings = old.rotary_embeddings
            scale = old.head_size**-0.5
            parts = ((old.query, scale), (old.key, 1.0), (old.value, 1.0))
            self.weights = [layer.weight * factor for layer, factor in parts]
            self.biases = [layer.bias * factor for layer, factor in parts]
            if joined:
                self.weights, self.biases = [torch.cat(self.weights)], [torch.cat(self.biases)]

        def forward(self, x: Any, bias: Any, angles: Any, explicit: bool) -> Any:
            rows, n_tokens = x.shape[:2]
            linear = torch.nn.functional.linear
            products = [linear(x, weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True)]
            parts = products[0].chunk(3, dim=-1) if joined else products
            shape = (rows, n_tokens, old.n_heads, old.head_size)
            query, key, value = (part.view(shape).transpose(1, 2) for part in parts)
            cos, sin = (angle.to(x.dtype) for angle in angles)
            mixed = torch.nn.functional.scaled_dot_product_attention(
                rotate(query, cos, sin),
                rotate(key, cos, sin),
                value,
                attn_mask=bias.to(x.dtype) if masked else None,
                scale=1.0,
            )
            return mixed.transpose(1, 2).reshape(rows, n_tokens, -1)

    return Attention()


def angles_kept(machine: Machine, module: Any) -> Run:
    """Cosines and sines once for each length, not in every pass."""
    from wyr_batch.models import encoder

    usual = encoder.rotary_angles
    kept = lru_cache(maxsize=64)(usual)

    def run(ids: Any, asked: Any) -> Any:
        encoder.rotary_angles = kept
        try:
            return module(ids, asked)
        finally:
            encoder.rotary_angles = usual

    return run


def cudnn_allowed(machine: Machine, module: Any) -> Run:
    """torch may choose cuDNN's attention, as it does where no engine switches it off."""
    switch = need_torch().backends.cuda.enable_cudnn_sdp

    def run(ids: Any, asked: Any) -> Any:
        switch(True)
        try:
            return module(ids, asked)
        finally:
            switch(False)

    return run


def directions_apart(machine: Machine, module: Any) -> Run:
    """The two directions of the Explainer's LSTM one after the other, not as one of twice the width."""
    other = copy.deepcopy(module)
    other.explainer.paired = None
    run: Run = other
    return run


def on_side_stream(machine: Machine, module: Any) -> Run:
    """The Explainer's features beside the plain pass; only the rows of the classes wait for it."""
    torch = need_torch()
    from wyr_batch.models.fused import FusedOutput, exact_sigmoid
    from wyr_batch.models.numbers import full_precision

    model, explainer = module.explanandum, module.explainer
    side = torch.cuda.Stream(machine.device) if machine.on_gpu else None

    def run(ids: Any, asked: Any) -> Any:
        valid = model.valid(ids)
        if side is not None:
            side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side) if side is not None else nullcontext():
            features = explainer.normalised(explainer.features(ids, valid), valid)
        embedded = model.embed(ids)
        _, logits = model.read(embedded, ids)
        explained = torch.where(asked < 0, model.top_classes(logits), asked.long())
        if side is not None:
            torch.cuda.current_stream().wait_stream(side)
            features.record_stream(torch.cuda.current_stream())
        classes = explained + module.first_class
        mask_logits = explainer.head.weight[classes] @ features.transpose(1, 2)
        mask_logits = mask_logits + explainer.head.bias[classes].unsqueeze(-1)
        rank_masks = exact_sigmoid(full_precision(mask_logits)) * valid.unsqueeze(1)
        mask = rank_masks.amax(dim=1)
        masked_logits = model.classify(embedded, ids, mask)
        probs, masked_probs = model.probabilities(logits), model.probabilities(masked_logits)
        return FusedOutput(mask, rank_masks, explained.to(torch.int32), probs, masked_probs)

    return run


def compiled(machine: Machine, module: Any) -> Run:
    """The encoder through torch.compile, the LSTM outside."""
    other = copy.deepcopy(module)
    encoder = other.explanandum.encoder
    encoder.encode = need_torch().compile(
        encoder.encode, dynamic=True, backend="eager" if machine.quick else "inductor"
    )
    run: Run = other
    return run


def two_slots(machine: Machine, module: Any, batch: tuple[Any, Any]) -> dict[str, float]:
    """Return seconds a batch, copies included, of one thread with two streams; the part sweep has two threads."""
    torch = need_torch()
    sources = [torch.from_numpy(values) for values in batch]
    sources = [tensor.pin_memory() for tensor in sources] if machine.on_gpu else sources
    streams = [torch.cuda.Stream(machine.device) if machine.on_gpu else None for _ in range(2)]
    results: list[list[Any]] = [[], []]

    def enqueue(slot: int) -> None:
        stream = streams[slot]
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            out = module(*(tensor.to(machine.device, non_blocking=True) for tensor in sources))
            if not results[slot]:
                results[slot] = [torch.empty(o.shape, dtype=o.dtype, pin_memory=machine.on_gpu) for o in out]
            for host, tensor in zip(results[slot], out, strict=True):
                host.copy_(tensor, non_blocking=True)

    def wait(slot: int) -> None:
        stream = streams[slot]
        if stream is not None:
            stream.synchronize()

    def follow_each_other(n_batches: int) -> None:
        enqueue(0)
        for number in range(1, n_batches):
            enqueue(number % 2)
            wait((number - 1) % 2)
        wait((n_batches - 1) % 2)

    n_batches = 2 if machine.quick else 8
    seconds = machine.seconds(lambda: follow_each_other(n_batches)) / n_batches
    return {"seconds_a_batch": seconds, "reads_per_s": len(batch[0]) / seconds}


CHANGES: dict[str, Callable[[Machine, Any], Run]] = {
    "rows padded to a multiple of 8": padded,
    "no attention mask": with_attention(joined=False, masked=False),
    "one product for query, key and value": with_attention(joined=True, masked=True),
    "one product, no attention mask": with_attention(joined=True, masked=False),
    "angles kept": angles_kept,
    "cuDNN's attention allowed": cudnn_allowed,
    "directions of the LSTM apart": directions_apart,
    "Explainer's features on a side stream": on_side_stream,
    "encoder compiled": compiled,
}
