"""The torch engine: one code path for CPU and GPU, its GPU branches run here on the CPU through a thin stand-in."""

from __future__ import annotations

import copy
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import FakeLibrary, installed
from toy_models import seeded_ids, toy_explainer

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.engines.torch import LoadedModel, TorchEngine
from wyr_batch.errors import OutOfMemory, UsageError


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> LoadedModel:
    return LoadedModel(bundle, "float32", "cpu", 1)


class Stream:
    """Counts how often it was waited for."""

    n_waits = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def synchronize(self) -> None:
        self.n_waits += 1


class TorchWithGpu:
    """torch, whose GPU is the CPU: streams do nothing, pinned memory is memory."""

    class cuda:
        Stream = Stream
        n_emptied = 0

        @staticmethod
        def stream(stream: Stream) -> Any:
            assert isinstance(stream, Stream)
            return nullcontext()

        @classmethod
        def empty_cache(cls) -> None:
            cls.n_emptied += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *size: int, pin_memory: bool, **options: Any) -> torch.Tensor:
        assert pin_memory
        return torch.empty(*size, **options)


def on_fake_gpu(bundle: Bundle, model: LoadedModel) -> TorchEngine:
    """Return an engine that takes every branch of a GPU's."""
    twin = copy.copy(model)
    twin.torch = TorchWithGpu()

    class Device:
        type = "cuda"

        def __str__(self) -> str:
            return "cuda:0"

    twin.device = Device()
    engine = TorchEngine(bundle, "float32", twin)
    engine._model = copy.copy(twin)
    engine._model.device = torch.device("cpu")
    return engine


def batch(bundle: Bundle, n_rows: int, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(n_rows).integers(6, 4102, (n_rows, n_tokens)).astype(np.int32)
    ids[:, 0], ids[-1, n_tokens // 2 :] = 3, 1
    return ids, np.full((n_rows, len(bundle.ranks)), -1, np.int32)


def test_gpu_branches_give_the_cpus_results_and_copies(bundle: Bundle, model: LoadedModel) -> None:
    engine, reference = on_fake_gpu(bundle, model), TorchEngine(bundle, "float32", model)
    assert (engine.device, engine.pad_to, engine.default_batch_tokens) == ("cuda:0", 8, 49152)
    assert (reference.device, reference.pad_to) == ("cpu", 1)
    kept = []
    for shape in ((2, 20), (5, 30), (3, 8)):
        ids, asked = batch(bundle, *shape)
        wanted = EngineOutput._make(np.array(values) for values in reference.infer(ids, asked))
        kept.append((engine.infer(ids, asked), wanted))
    assert engine._stream.n_waits == 3
    for found, wanted in kept:  # after later batches: nothing was written over
        for name in EngineOutput._fields:
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    engine.close()


def test_engines_share_weights_and_run_in_threads(bundle: Bundle, model: LoadedModel) -> None:
    engines = [TorchEngine(bundle, "float32", model) for _ in range(2)]
    assert engines[0]._model.module is engines[1]._model.module
    ids, asked = batch(bundle, 4, 40)
    wanted = np.array(engines[0].infer(ids, asked).mask)
    found: list[np.ndarray] = []

    def run(engine: TorchEngine) -> None:
        found.extend(np.array(engine.infer(ids, asked).mask) for _ in range(3))

    threads = [threading.Thread(target=run, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for mask in found:
        np.testing.assert_allclose(mask, wanted, atol=1e-6)


def test_an_engine_on_a_gpu_has_one_thread_whoever_calls(bundle: Bundle, model: LoadedModel) -> None:
    engines = [on_fake_gpu(bundle, model) for _ in range(2)]
    seen: list[set[int]] = [set(), set()]

    def watched(engine: TorchEngine, threads: set[int]) -> None:
        infer = engine._infer

        def in_thread(*batch: np.ndarray) -> EngineOutput:
            threads.add(threading.get_ident())
            return infer(*batch)

        engine._infer = in_thread  # type: ignore[method-assign]

    for engine, threads in zip(engines, seen, strict=True):
        watched(engine, threads)
        engine.infer(*batch(bundle, 2, 9))
        callers = [threading.Thread(target=engine.infer, args=batch(bundle, n, 9)) for n in (1, 2, 3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(threads) == 1
        assert threading.get_ident() not in threads
    assert seen[0] != seen[1]
    names = [thread.name for thread in threading.enumerate()]
    assert len([name for name in names if name.startswith("wyr-cuda:0")]) == 2
    for engine in engines:
        engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wyr-cuda:0")]


def test_switches_of_the_process_are_set_while_an_engine_is_open_on_a_gpu(bundle: Bundle, model: LoadedModel) -> None:
    def found() -> tuple[bool, ...]:
        cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
        return cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled(), cudnn.allow_tf32, cuda.matmul.allow_tf32

    before = found()
    assert before[:3] == (True, True, True)
    TorchEngine(bundle, "float32", model).close()
    first, second = on_fake_gpu(bundle, model), on_fake_gpu(bundle, model)
    assert found() == (False, True, False, False)
    first.close()
    first.close()
    assert found() == (False, True, False, False)
    second.close()
    assert found() == before


def test_out_of_memory_empties_torchs_cache(
    bundle: Bundle, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = on_fake_gpu(bundle, model)
    monkeypatch.setattr(TorchWithGpu.cuda, "n_emptied", 0)  # other tests' engines run out of memory too

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(engine._model, "module", fail)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        engine.infer(*batch(bundle, 2, 20))
    assert TorchWithGpu.cuda.n_emptied == 1
    engine.close()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell_states", [True, False])
def test_both_directions_as_one_lstm_give_the_same_features(num_layers: int, cell_states: bool) -> None:
    explainer = toy_explainer(num_layers, cell_states)
    paired = copy.deepcopy(explainer)
    paired.pair_directions()
    ids = seeded_ids()[:8].clone()
    ids[1, 7:], ids[2, 1:] = 1, 1
    valid = ids != 1
    with torch.inference_mode():
        wanted, found = explainer.features(ids, valid), paired.features(ids, valid)
        assert paired.paired is not None
        torch.testing.assert_close(found[valid], wanted[valid], atol=1e-6, rtol=1e-5)
        with torch.no_grad():
            paired.paired[-1].weight_hh_l0.mul_(0.5)
        assert (paired.features(ids, valid) - wanted)[valid].abs().max() > 1e-3, "the paired weights are what is used"


def test_torch_without_cuda_says_how_to_get_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        installed(FakeLibrary()),
        pytest.raises(UsageError, match=r"torch .* sees no GPU, expected one built for CUDA"),
    ):
        open_engine(bundle, EngineRequest("cuda", "torch", "auto", 1))
