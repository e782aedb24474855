"""The torch engine: one code path for CPU and GPU, its GPU branches run here on the CPU through a thin stand-in."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fake_cuda import FakeLibrary, installed
from toy_families import toy
from toy_models import seeded_ids, toy_explainer

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine, open_engines
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.engines.torch import MOST_GRAPHS, TIMED, LoadedModel, TorchEngine, _Slot, gpu_form, gpu_version
from wyr_batch.errors import EngineError, OutOfMemory, UsageError
from wyr_batch.kernels import choose as kernels
from wyr_batch.kernels.plain import PLAIN
from wyr_batch.models.gpu.fused import GpuFused
from wyr_batch.models.lstm import LstmExplainer


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> LoadedModel:
    return LoadedModel(bundle, "float32", "cpu", 1)


class Stream:
    """Work is done when it is enqueued; what is called is written down."""

    def __init__(self, device: torch.device) -> None:
        self.calls: list[str] = []

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def wait_stream(self, other: Stream) -> None:
        assert other is not self
        self.calls.append("wait for the other")


class TorchWithGpu:
    """torch, whose GPU is the CPU: streams do nothing, pinned memory is memory."""

    class cuda:
        Stream = Stream
        n_emptied = 0
        entered: ClassVar[list[Stream]] = []

        @classmethod
        @contextmanager
        def stream(cls, stream: Stream) -> Iterator[None]:
            cls.entered.append(stream)
            yield
            assert cls.entered.pop() is stream

        @staticmethod
        def device(device: torch.device) -> AbstractContextManager[None]:
            return nullcontext()

        @classmethod
        def empty_cache(cls) -> None:
            cls.n_emptied += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *size: int, pin_memory: bool, **options: Any) -> torch.Tensor:
        assert pin_memory
        return torch.empty(*size, **options)


def as_on_gpu(bundle: Bundle, model: LoadedModel) -> LoadedModel:
    """Return a loaded model that says it is on a GPU, in the form of one."""
    twin = copy.copy(model)
    twin.torch = TorchWithGpu()
    loaded = model.module
    twin.module = GpuFused(loaded.explanandum, loaded.explainer, torch.float32, bundle.max_tokens)

    class Device:
        type = "cuda"

        def __str__(self) -> str:
            return "cuda:0"

    twin.device = Device()
    return twin


def on_fake_gpu(bundle: Bundle, model: LoadedModel, masked_calls: bool = True) -> TorchEngine:
    """Return an engine that takes every branch of a GPU's, with the models in their GPU form."""
    twin = as_on_gpu(bundle, model)
    engine = TorchEngine(bundle, "float32", twin, masked_calls)
    engine._model = copy.copy(twin)
    engine._model.device = torch.device("cpu")
    return engine


def batch(bundle: Bundle, n_rows: int, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(n_rows).integers(6, 4102, (n_rows, n_tokens)).astype(np.int32)
    ids[:, 0], ids[-1, n_tokens // 2 :] = 3, 1
    return ids, np.full((n_rows, len(bundle.ranks)), -1, np.int32)


def assert_near(found: EngineOutput, wanted: EngineOutput) -> None:
    for name in EngineOutput._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5, err_msg=name)


def test_gpu_branches_give_the_cpus_results_and_copies(bundle: Bundle, model: LoadedModel) -> None:
    engine, reference = on_fake_gpu(bundle, model), TorchEngine(bundle, "float32", model)
    assert (engine.device, engine.pad_to, engine.default_batch_tokens) == ("cuda:0", 8, 98304)
    assert (engine.in_flight, engine.pads_equal_rows) == (2, False)
    assert (reference.device, reference.pad_to, reference.in_flight) == ("cpu", 1, 1)
    kept = []
    for shape in ((2, 20), (5, 30), (3, 8)):
        ids, asked = batch(bundle, *shape)
        kept.append((engine.infer(ids, asked), reference.infer(ids, asked)))
    for found, wanted in kept:  # after later batches: nothing was written over
        assert_near(found, wanted)
    (slot,) = engine._idle
    assert slot.stream.calls == ["wait for the other", "synchronize"] * 3
    assert slot._side.calls == ["wait for the other"] * 3
    engine.close()


def test_two_batches_in_flight_have_slots_of_their_own(bundle: Bundle, model: LoadedModel) -> None:
    engine, reference = on_fake_gpu(bundle, model), TorchEngine(bundle, "float32", model)
    batches = [batch(bundle, n_rows, 24) for n_rows in (4, 3, 5, 2)]
    handles = [engine.start(*batches[0]), engine.start(*batches[1])]
    outputs = [engine.finish(handles[0])]
    handles.append(engine.start(*batches[2]))
    outputs += [engine.finish(handles[1]), engine.finish(handles[2]), engine.infer(*batches[3])]
    assert len(engine._idle) == 2
    for found, each in zip(outputs, batches, strict=True):
        assert_near(found, reference.infer(*each))
    under_way = engine.start(*batches[0])
    engine.close()
    with pytest.raises(EngineError, match="a batch after it was closed"):
        engine.finish(under_way)


def test_without_masked_calls_the_second_pass_is_left_out_of_both_slots(bundle: Bundle, model: LoadedModel) -> None:
    reference = TorchEngine(bundle, "float32", model)
    with on_fake_gpu(bundle, model, masked_calls=False) as engine:
        encoder, passes = engine._model.module.encoder, []
        encode = encoder.encode
        encoder.encode = lambda *arguments: (passes.append(1), encode(*arguments))[1]
        batches = [batch(bundle, n_rows, 24) for n_rows in (4, 3)]
        for started, each in zip([engine.start(*each) for each in batches], batches, strict=True):
            wanted = reference.infer(*each)
            assert_near(engine.finish(started), wanted._replace(masked_probs=wanted.masked_probs[:, :0]))
        assert len(passes) == 2
        assert engine.describe() == "torch float32 on cuda:0 without masked calls"


def test_each_gpu_has_one_engine_with_room_for_two_batches(
    bundle: Bundle, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("wyr_batch.engines.torch.LoadedModel", lambda *_: as_on_gpu(bundle, model))
    monkeypatch.setattr("wyr_batch.choose.ensure_proven", lambda engine, *_: None)
    request = EngineRequest("cuda:all", "torch", "float32", 1, masked_calls=False)
    with installed(FakeLibrary(("A", "B"))):
        engines = open_engines(bundle, request)
        assert [(engine.in_flight, engine.masked_calls) for engine in engines] == [(2, False)] * 2
        alone = open_engine(bundle, replace(request, device="cuda"))
    assert alone.in_flight == 1
    for engine in (*engines, alone):
        engine.close()
    assert switches()[:3] == (True, True, True)


def test_rows_without_padding_are_said_to_be_so(
    bundle: Bundle, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = on_fake_gpu(bundle, model)
    module, said = engine._model.module, []

    def seen(*arguments: Any, padded: bool, **options: Any) -> Any:
        said.append(padded)
        return module(*arguments, padded=padded, **options)

    monkeypatch.setattr(engine._model, "module", seen)
    ids, asked = batch(bundle, 3, 20)
    engine.infer(ids, asked)
    engine.infer(ids[:2].copy(), asked[:2].copy())
    assert said == [True, False]
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
        for name in ("_start", "_finish"):
            step = getattr(engine, name)

            def in_thread(*arguments: Any, step: Any = step) -> Any:
                threads.add(threading.get_ident())
                return step(*arguments)

            setattr(engine, name, in_thread)

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


def switches() -> tuple[bool, ...]:
    """Return what torch keeps for the process: cuDNN's attention, flash attention, TF32 in cuDNN and in products."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled(), cudnn.allow_tf32, cuda.matmul.allow_tf32


def test_switches_of_the_process_are_set_while_an_engine_is_open_on_a_gpu(bundle: Bundle, model: LoadedModel) -> None:
    before = switches()
    assert before[:3] == (True, True, True)
    TorchEngine(bundle, "float32", model).close()
    first, second = on_fake_gpu(bundle, model), on_fake_gpu(bundle, model)
    assert switches() == (False, True, False, False)
    first.close()
    first.close()
    assert switches() == (False, True, False, False)
    second.close()
    assert switches() == before


def test_what_was_made_aside_is_not_freed_for_others_before_it_has_been_used() -> None:
    class Made:
        is_cuda = True
        used_by: ClassVar[list[Any]] = []

        def record_stream(self, stream: Any) -> None:
            self.used_by.append(stream)

    slot, made = _Slot(TorchWithGpu(), torch.device("cpu")), Made()
    wait = slot.aside(lambda: made)
    assert not Made.used_by
    assert wait() is made
    assert Made.used_by == [slot.stream]


def test_ways_are_compared_and_timed_as_engines_will_run_them(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = switches(), []

    def choose_ways(self: GpuFused, compiler: Any, with_kernels: bool) -> None:
        seen.append((switches(), compiler, with_kernels))

    monkeypatch.setattr(GpuFused, "choose_ways", choose_ways)
    monkeypatch.setattr(kernels, "wanted", lambda: os.environ.get("WYR_KERNELS") != "off")
    arguments = model.module.explanandum, model.module.explainer, "float16", 64, torch.device("cpu")
    module = gpu_form(TorchWithGpu(), *arguments)
    assert module.encoder.layers[0].up.weight.dtype == torch.float16
    monkeypatch.setenv("WYR_COMPILE", "on")
    monkeypatch.setenv("WYR_KERNELS", "off")
    gpu_form(TorchWithGpu(), *arguments)
    assert torch._dynamo.config.recompile_limit == MOST_GRAPHS
    held = (False, True, False, False)
    assert seen == [(held, None, True), (held, torch.compile, False)]
    assert switches() == before


@pytest.mark.parametrize("family", ["nt", "dnabert"])
def test_a_model_opens_where_memory_does_not_suffice_to_compare_ways(
    family: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def choose_kernels(self: LstmExplainer, timer: Any, timed: tuple[int, int]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(LstmExplainer, "choose_kernels", choose_kernels)
    monkeypatch.setattr(kernels, "wanted", lambda: True)
    monkeypatch.setattr("wyr_batch.models.gpu.fused.chosen_steps", lambda *_: PLAIN)
    explanandum = model.module.explanandum if family == "nt" else toy("dnabert").model
    before, n_emptied = switches(), TorchWithGpu.cuda.n_emptied
    gpu_form(TorchWithGpu(), explanandum, toy_explainer(), "float32", 64, torch.device("cpu"))
    assert "no memory on cpu to compare them (CUDA out of memory. Tried to allocate 2.00 GiB.)" in caplog.text
    assert TorchWithGpu.cuda.n_emptied == n_emptied + 1
    assert switches() == before


def test_explainers_of_other_families_have_the_choice_of_kernels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    explanandum, explainer = toy("dnabert").model, toy_explainer()
    seen: list[Any] = []

    def choose_kernels(self: LstmExplainer, timer: Any, timed: tuple[int, int]) -> None:
        seen.append((switches(), torch.is_inference_mode_enabled(), self.paired is not None, timed))

    monkeypatch.setattr(LstmExplainer, "choose_kernels", choose_kernels)
    for wanted in (True, False):
        monkeypatch.setattr(kernels, "wanted", lambda wanted=wanted: wanted)
        gpu_form(TorchWithGpu(), explanandum, copy.deepcopy(explainer), "float32", 64, torch.device("cpu"))
    assert seen == [((False, True, False, False), True, True, TIMED)]


def test_a_proof_names_triton_and_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "triton_version", lambda: "3.9.0")
    monkeypatch.setattr(kernels, "wanted", lambda: os.environ.get("WYR_KERNELS") != "off")
    assert gpu_version() == f"{torch.__version__}, Triton 3.9.0"
    monkeypatch.setenv("WYR_COMPILE", "on")
    assert gpu_version() == f"{torch.__version__}, Triton 3.9.0, compiled"
    monkeypatch.delenv("WYR_COMPILE")
    monkeypatch.setenv("WYR_KERNELS", "off")
    assert gpu_version() == str(torch.__version__)


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
