"""Which device, runtime and precision is taken, what is said about it, and that nothing runs unproven."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import INVALID_VALUE, NO_DEVICE, FakeLibrary, installed
from fake_tensorrt import FakeTensorRt
from toy_engine import FileBundle, ToyEngine

from wyr_batch.choose import EngineRequest, choose_device, choose_ways, open_engine, open_engines
from wyr_batch.cli import main
from wyr_batch.engines import cuda
from wyr_batch.engines.base import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from wyr_batch.engines.cuda import Driver, chosen_gpus, find_gpus
from wyr_batch.engines.onnx import check_one_distribution
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.errors import ModelError, UsageError
from wyr_batch.proof import first_use
from wyr_batch.proof.compare import FLOAT32, THRESHOLDS

EXAMPLE = Path(__file__).parents[1] / "examples" / "reads.fastq.gz"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-x", "cuda"], "--device: got cuda, expected an NVIDIA GPU and found none: no NVIDIA driver"),
        (["-x", "cuda:all"], "--device: got cuda:all, expected an NVIDIA GPU"),
        (["--runtime", "tensorrt"], "--runtime: got tensorrt, expected an NVIDIA GPU and found none"),
        (["--runtime", "tensorrt", "-x", "cpu"], "got tensorrt with --device cpu, expected --device cuda"),
        (["-x", "gpu"], "--device: got gpu, expected auto, cpu, cuda, cuda:N or cuda:all"),
        (["-x", "cuda:"], "--device: got cuda:, expected auto"),
    ],
)
def test_gpu_that_is_not_there_is_a_usage_error(
    words: list[str], message: str, no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.parquet"
    assert main(["run", str(EXAMPLE), "-o", str(output), *words]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_auto_without_a_gpu_is_the_cpu_and_says_why(
    no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(EXAMPLE), "-n", "2", "-o", str(tmp_path / "m.parquet")]) == 0
    err = capsys.readouterr().err
    assert "device: cpu (no NVIDIA driver (libcuda.so.1 is not there))" in err
    assert f"{CPU_BATCH_TOKENS} tokens a batch" in err


def test_gpus_by_name() -> None:
    with installed(FakeLibrary(("A", "B", "C"))):
        assert [g.name for g in chosen_gpus("cuda")] == ["A"]
        assert [(g.name, g.device) for g in chosen_gpus("cuda:2")] == [("C", "cuda:2")]
        assert [g.index for g in chosen_gpus("cuda:all")] == [0, 1, 2]
        assert find_gpus()[0][1] == cuda.Gpu(1, "B", (9, 0), 1 << 34, "CUDA 13.0")
        with pytest.raises(UsageError, match="got cuda:3, expected cuda:0 to cuda:2"):
            chosen_gpus("cuda:3")
    with installed(FakeLibrary(())), pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        chosen_gpus("cuda")


def test_driver_that_finds_nothing_says_so() -> None:
    library = FakeLibrary()
    library.codes["cuInit"] = NO_DEVICE
    with installed(library):
        assert find_gpus() == (
            [],
            "the NVIDIA driver says cuInit: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)",
        )
    library.codes = {"cuDriverGetVersion": 999, "cuGetErrorName": INVALID_VALUE, "cuGetErrorString": INVALID_VALUE}
    with pytest.raises(cuda.CudaError, match=r"cuDriverGetVersion: error 999 \(error 999\)"):
        Driver(library).gpus()


def test_auto_takes_a_gpu_only_with_a_runtime_for_it(
    file_bundle: FileBundle,
    trt: FakeTensorRt,
    usable_runtimes: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")
    usable_runtimes(tensorrt=trt.__version__)
    engines = open_engines(file_bundle, EngineRequest("auto", "auto", "auto", 1))
    assert [(e.runtime, e.dtype, e.device) for e in engines] == [("tensorrt", "float16", "cuda:0")] * 2
    assert (engines[0].pad_to, engines[0].default_batch_tokens) == (8, GPU_BATCH_TOKENS)
    assert "device: cuda:0, Fake GPU" in caplog.text
    assert "runtime: tensorrt float16 on Fake GPU (nothing has been measured on this GPU" in caplog.text
    for engine in engines:
        engine.close()
    usable_runtimes()
    assert choose_device("auto", "auto", "auto") == "cpu"
    assert "device: cpu (Fake GPU is there, but --runtime tensorrt: got no package 'tensorrt'" in caplog.text
    assert choose_device("auto", "openvino", "auto") == "cpu"
    with pytest.raises(
        UsageError, match=r"--device: got cuda, expected a runtime .*pip install 'wyr-batch\[gpu,tensorrt\]'"
    ):
        open_engine(file_bundle, EngineRequest("cuda", "auto", "auto", 1))
    with pytest.raises(UsageError, match="got openvino with --device cuda, expected tensorrt, torch, onnx"):
        open_engine(file_bundle, EngineRequest("cuda", "openvino", "auto", 1))


@pytest.mark.parametrize(
    ("speeds", "versions", "first"),
    [
        ({}, ("tensorrt", "torch", "onnx"), ("tensorrt", "float16")),
        ({}, ("torch", "onnx"), ("torch", "float16")),
        ({}, ("onnx",), ("onnx", "float16")),
        (
            {"torch float16 on Fake GPU": 20.0, "tensorrt float16 on Fake GPU": 10.0},
            ("tensorrt", "torch"),
            ("torch", "float16"),
        ),
        ({"torch float16 on Fake GPU": 20.0}, ("tensorrt",), ("tensorrt", "float16")),
        ({"torch float16 on Other GPU": 20.0}, ("tensorrt", "torch"), ("tensorrt", "float16")),
        ({"onnx float16": 20.0}, ("tensorrt", "onnx"), ("tensorrt", "float16")),
    ],
)
def test_fastest_that_was_measured_on_this_gpu_comes_first(
    speeds: dict[str, float],
    versions: tuple[str, ...],
    first: tuple[str, str],
    file_bundle: FileBundle,
    library: FakeLibrary,
) -> None:
    file_bundle.__dict__["_proof_json"] = {"rows_per_s": speeds}
    ways, why = choose_ways(file_bundle, find_gpus()[0][0], "auto", "auto", dict.fromkeys(versions, "1"))
    assert ways[0] == first
    measured = f"{first[0]} {first[1]} on Fake GPU" in speeds
    assert ("the fastest that was measured" in why) == measured


def test_bundle_without_halves_prefers_the_runtime_that_makes_them(
    file_bundle: FileBundle, library: FakeLibrary
) -> None:
    file_bundle.holds = lambda kind, dtype: dtype == "float32"  # type: ignore[method-assign]
    ways, _ = choose_ways(file_bundle, find_gpus()[0][0], "auto", "auto", {"tensorrt": "1", "torch": "1"})
    assert ways == [("torch", "float16"), ("tensorrt", "float32"), ("torch", "float32")]


class Off(ToyEngine):
    """A reference that differs from the engine in every probability by so much."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = np.float32(by)

    def _infer(self, input_ids: np.ndarray, explain_ids: np.ndarray) -> EngineOutput:
        out = super()._infer(input_ids, explain_ids)
        return out._replace(probs=out.probs + self.by, masked_probs=out.masked_probs + self.by)


def test_float32_on_a_gpu_may_differ_by_what_another_order_of_sums_makes() -> None:
    engine = ToyEngine()
    engine.dtype, engine.device = "float32", "cuda:0"
    assert first_use.thresholds_of(engine) == replace(FLOAT32, mask=1e-4, probs=1e-4, padding=1e-4)
    engine.dtype = "float16"
    assert first_use.thresholds_of(engine) == THRESHOLDS["float16"]
    engine.dtype, engine.device = "float32", "cpu"
    assert first_use.thresholds_of(engine) == FLOAT32


@pytest.mark.parametrize(("by", "passes"), [(5e-5, True), (2e-4, False)])
def test_float32_on_a_gpu_is_held_to_its_limits(
    by: float, passes: bool, file_bundle: FileBundle, trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_use, "open_reference", lambda *_: Off(by))
    request = EngineRequest("cuda", "tensorrt", "float32", 1)
    if passes:
        return open_engine(file_bundle, request).close()
    with pytest.raises(ModelError, match=r"expected at most 0\.0001"):
        open_engine(file_bundle, request)
    return None


class Wrong(ToyEngine):
    """A reference that the engine disagrees with."""

    def _infer(self, input_ids: np.ndarray, explain_ids: np.ndarray) -> EngineOutput:
        out = super()._infer(input_ids, explain_ids)
        return out._replace(mask=out.mask * np.float32(0.5))


def test_engine_that_fails_its_proof_is_refused_and_remembered(
    file_bundle: FileBundle, trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_use, "open_reference", lambda *_: Wrong())
    with pytest.raises(ModelError, match=r"tensorrt float16 on cuda:0: got mask: got a mean difference"):
        open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1))
    assert trt.library.clean
    monkeypatch.setattr(first_use, "open_reference", lambda *_: pytest.fail("it has been compared before"))
    with pytest.raises(ModelError, match=r"delete .*json to try again"):
        open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1))
    (path,) = (tmp_path / "cache" / "proofs").glob("toy-tensorrt-float16-*.json")
    path.unlink()
    monkeypatch.setattr(first_use, "open_reference", lambda *_: ToyEngine())
    open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1)).close()
    found = json.loads(path.read_text())
    assert found["record"]["verdict"] == "passed"
    assert found["record"]["n_reads"] > 250
    assert found["key"]["gpu"] == "Fake GPU"
    assert found["rows_per_s"] > 0


def test_auto_goes_on_to_float32_when_halves_fail_and_says_so(
    file_bundle: FileBundle,
    trt: FakeTensorRt,
    usable_runtimes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    usable_runtimes(tensorrt=trt.__version__)
    references = iter([Wrong(), ToyEngine()])
    monkeypatch.setattr(first_use, "open_reference", lambda *_: next(references))
    with open_engine(file_bundle, EngineRequest("cuda", "auto", "auto", 1)) as engine:
        assert engine.dtype == "float32"
    assert "tensorrt float16 on cuda:0: got mask" in caplog.text


def test_proof_of_another_version_bundle_or_gpu_does_not_count(
    file_bundle: FileBundle, trt: FakeTensorRt, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def reference(*_: object) -> ToyEngine:
        compared.append("once")
        return ToyEngine()

    monkeypatch.setattr(first_use, "open_reference", reference)
    open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1)).close()
    open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1)).close()
    assert len(compared) == 1
    library.names = ("Other GPU",)
    open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1)).close()
    assert len(compared) == 2
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt(library, "11.5.0"))
    open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1)).close()
    assert len(compared) == 3
    file_bundle.__dict__["sha256"] = "1" * 64
    open_engine(file_bundle, EngineRequest("cuda", "tensorrt", "float16", 1)).close()
    assert len(compared) == 4


@pytest.mark.parametrize(("names", "fits"), [(("onnxruntime",), True), (("onnxruntime", "onnxruntime-gpu"), False)])
def test_two_distributions_of_onnx_runtime_are_an_error_that_mends_them(
    names: tuple[str, ...], fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        folder = tmp_path / f"{name.replace('-', '_')}-1.30.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if fits:
        check_one_distribution()
        return
    with pytest.raises(UsageError) as caught:
        check_one_distribution()
    for command in ("pip uninstall -y onnxruntime onnxruntime-gpu", "pip install 'wyr-batch[gpu]'"):
        assert command in str(caught.value)
