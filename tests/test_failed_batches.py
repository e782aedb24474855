"""Out of memory: nothing of the batch that failed is alive while its halves run, whatever the engine."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_torch_engine import on_fake_gpu
from toy_engine import ToyEngine

from wyr_batch.bundle import load_bundle
from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.engines.torch import LoadedModel, TorchEngine
from wyr_batch.errors import EngineError, OutOfMemory
from wyr_batch.explain.step import ExplainStep
from wyr_batch.kernels.plain import Padding
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.tokens.plan import Planner

MOST_ROWS = 3
ERRORS = [
    lambda: MemoryError(),
    lambda: RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    lambda: OutOfMemory("TensorRT, running", "no result", "one"),
    lambda: EngineError("TensorRT, running", "no result", "one"),
    lambda: ValueError("a kernel failed"),
]


class Watch:
    """Weak references to what belongs to batches that failed; `n_checks` counts batches before which all were dead."""

    def __init__(self) -> None:
        self._refs: list[tuple[str, weakref.ref[Any]]] = []
        self.n_failed = self.n_checks = 0

    def before_batch(self) -> None:
        alive = [name for name, ref in self._refs if ref() is not None]
        assert not alive, f"of a batch that failed, {', '.join(alive)}"
        self.n_checks += bool(self._refs)

    def failed(self, **things: Any) -> None:
        self._refs += [(name, weakref.ref(thing)) for name, thing in things.items()]
        self.n_failed += 1


@pytest.fixture
def no_collector(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A GPU does not wait for the collector of cycles; and a handler like caplog's keeps whole log records."""
    caplog.set_level(logging.DEBUG, "wyr_batch")
    gc.disable()
    yield
    gc.enable()


def run(engine: Engine, batch_tokens: int = 10_000) -> None:
    reads = ["".join(np.random.default_rng(i).choice(list("ACGT"), 60)) for i in range(13)]
    step = ExplainStep(engine, np.full(len(engine.bundle.ranks), -1, np.int32))
    assert not step(Planner(60, 2, batch_tokens).plan(ReadChunk.from_sequences(reads))).failed


class Limited(ToyEngine):
    """Fails on batches of many rows."""

    def __init__(self, watch: Watch, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.watch, self.error = watch, error

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        self.watch.before_batch()
        scratch = np.zeros((len(input_ids), 1000))
        if len(input_ids) > MOST_ROWS:
            self.watch.failed(input_ids=input_ids, explain_ids=explain_ids, scratch=scratch)
            raise self.error()
        return super()._infer(input_ids, explain_ids)


@pytest.mark.parametrize("error", ERRORS)
def test_arrays_of_a_failed_batch_are_gone_before_its_halves_run(
    error: Callable[[], Exception], no_collector: None
) -> None:
    watch = Watch()
    run(Limited(watch, error))
    assert watch.n_failed >= 1
    assert watch.n_checks >= 4


class LimitedSlots(Limited):
    """The same with room for two batches, which are computed when they are waited for; or fails at once."""

    in_flight = 2

    def __init__(self, watch: Watch, error: Callable[[], Exception], at_start: bool) -> None:
        super().__init__(watch, error)
        self.at_start, self.n_most, self.n_under_way = at_start, 0, 0

    def _start(self, input_ids: Int32s, explain_ids: Int32s) -> Any:
        self.watch.before_batch()
        if self.at_start and len(input_ids) > MOST_ROWS:
            self.watch.failed(input_ids=input_ids, explain_ids=explain_ids)
            raise self.error()
        self.n_under_way += 1
        self.n_most = max(self.n_most, self.n_under_way)
        return input_ids, explain_ids

    def _finish(self, handle: Any) -> EngineOutput:
        self.n_under_way -= 1
        return self._infer(*handle)


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize("has_thread", [True, False])
@pytest.mark.parametrize("error", ERRORS)
def test_so_they_are_where_another_batch_is_under_way(
    error: Callable[[], Exception], has_thread: bool, at_start: bool, no_collector: None
) -> None:
    watch = Watch()
    with LimitedSlots(watch, error, at_start) as engine:
        engine.has_thread = has_thread
        run(engine, batch_tokens=70)
    assert engine.n_most == 2
    assert watch.n_failed >= 1
    assert watch.n_checks >= 4


@pytest.mark.parametrize(("on_gpu", "in_flight"), [(False, 1), (True, 1), (True, 2)])
def test_torchs_tensors_of_a_failed_batch_are_gone_before_its_halves_run(
    on_gpu: bool, in_flight: int, no_collector: None
) -> None:
    bundle = load_bundle()
    model = LoadedModel(bundle, "float32", "cpu", 1)
    engine = on_fake_gpu(bundle, model) if on_gpu else TorchEngine(bundle, "float32", model)
    engine.in_flight = in_flight
    module = engine._model.module
    encoder = module.encoder if on_gpu else module.explanandum.encoder
    watch, encode = Watch(), encoder.encode

    def limited(first: torch.Tensor, *others: torch.Tensor | Padding | None) -> torch.Tensor:
        """Of embeddings and padding, in a GPU's form of ids, mask and padding."""
        if len(first) > MOST_ROWS:
            tensors = [each for other in others for each in (other if isinstance(other, Padding) else [other])]
            there = {f"other {i}": each for i, each in enumerate(tensors) if each is not None}
            watch.failed(first=first, hidden=first + 1, **there)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        watch.before_batch()
        return encode(first, *others)

    encoder.encode = limited
    with engine:
        run(engine, 10_000 if in_flight == 1 else 70)
    assert watch.n_failed >= 1
    assert watch.n_checks >= 4
