"""ONNX Runtime's CUDA engine with a real session on the CPU, whose "GPU memory" is the stand-in driver's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from fake_cuda import FakeLibrary, installed

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines import onnx_cuda
from wyr_batch.engines.cuda import cuda_device, find_gpus
from wyr_batch.engines.onnx_cuda import (
    LoadedSession,
    OnnxCudaEngine,
    check_placement,
    provider_options,
    session_options,
)
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.errors import EngineError, MissingExtraError, ModelError, UsageError


class OnCpu:
    """A session whose bindings take addresses on "cuda" as addresses on the CPU, which the stand-in's are."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.bound: list[tuple[str, str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def io_binding(self) -> Any:
        real, bound = self._session.io_binding(), self.bound

        class Binding:
            _iobinding = real._iobinding

            def bind_input(self, name: str, device: str, index: int, *rest: Any) -> None:
                bound.append((name, device, index))
                real.bind_input(name, "cpu", 0, *rest)

            def bind_output(self, name: str, device: str, index: int, *rest: Any) -> None:
                bound.append((name, device, index))
                real.bind_output(name, "cpu", 0, *rest)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        return Binding()

    def run_with_iobinding(self, binding: Any) -> None:
        self._session._sess.run_with_iobinding(binding._iobinding, None)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture
def library() -> Iterator[FakeLibrary]:
    with installed(FakeLibrary(("Fake GPU", "Fake GPU"))) as library:
        yield library


def loaded(bundle: Bundle, index: int = 0) -> LoadedSession:
    session = ort.InferenceSession(
        str(bundle.verified("onnx", "float32")), session_options(ort), providers=["CPUExecutionProvider"]
    )
    made = LoadedSession.__new__(LoadedSession)
    made.session, made.device, made.masked_calls = OnCpu(session), cuda_device(find_gpus()[0][index]), True
    return made


def test_two_engines_of_one_session_give_the_cpus_results(bundle: Bundle, library: FakeLibrary) -> None:
    shared = loaded(bundle, 1)
    engines = [OnnxCudaEngine(bundle, "float32", shared) for _ in range(2)]
    assert [engine.device for engine in engines] == ["cuda:1"] * 2
    rng = np.random.default_rng(0)
    with open_engine(bundle, EngineRequest("cpu", "onnx", "float32", 1)) as reference:
        for n_rows, n_tokens in ((5, 64), (2, 9), (9, 30)):
            ids = rng.integers(6, 4102, (n_rows, n_tokens)).astype(np.int32)
            ids[:, 0], ids[1, 5:] = 3, 1
            asked = np.full((n_rows, len(bundle.ranks)), -1, np.int32)
            asked[0] = 1
            wanted = reference.infer(ids, asked)
            for engine in engines:
                found = engine.infer(ids, asked)
                for name in EngineOutput._fields:
                    np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5, err_msg=name)
    assert {(device, index) for _, device, index in shared.session.bound} == {("cuda", 1)}
    for engine in engines:
        engine.close()
    assert library.clean


def test_heavy_operations_off_the_gpu_are_refused(bundle: Bundle) -> None:
    session = ort.InferenceSession(
        str(bundle.verified("onnx", "float32")), session_options(ort), providers=["CPUExecutionProvider"]
    )
    check_placement(session, "CPUExecutionProvider")
    with pytest.raises(
        ModelError,
        match=r"got Conv on CPU.*MatMul on CPU.*expected all of it on CUDAExecution",
    ):
        check_placement(session, "CUDAExecutionProvider")
    with pytest.raises(UsageError, match="cannot say where nodes run"):
        check_placement(object(), "CUDAExecutionProvider")


def test_onnxruntime_for_cpus_is_not_taken_for_a_gpus(
    bundle: Bundle, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match=r"expected CUDAExecutionProvider.*pip uninstall -y onnxruntime"):
        open_engine(bundle, EngineRequest("cuda", "onnx", "float32", 1))
    # Built for GPUs, but its libraries do not load: ONNX Runtime would go on with the CPU.
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    real = ort.InferenceSession
    asked: list[Any] = []

    def fallen_back(path: str, options: Any, providers: list[Any]) -> Any:
        asked.extend(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", fallen_back)
    with pytest.raises(EngineError, match="got CPUExecutionProvider, expected CUDAExecutionProvider: its libraries"):
        open_engine(bundle, EngineRequest("cuda:1", "onnx", "float32", 1))
    assert asked == [("CUDAExecutionProvider", provider_options(1))]
    assert provider_options(1) == {"device_id": "1", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    assert not session_options(ort).enable_mem_pattern
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime-gpu"):
        onnx_cuda.import_onnxruntime()


def test_starter_has_no_halves_to_run(bundle: Bundle, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ModelError, match=r"expected onnx float16\. Ask for a dtype the bundle holds, or export it"):
        open_engine(bundle, EngineRequest("cuda", "onnx", "float16", 1))
