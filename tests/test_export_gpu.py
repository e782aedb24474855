"""`export --tensorrt`: plans built and proven, speeds written into the bundle, and what is said without a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_tensorrt import FakeTensorRt
from toy_engine import FileBundle
from wyr_batch.export.tensorrt_plans import check_tensorrt, prove_on_gpu

from wyr_batch.bundle import Bundle
from wyr_batch.cli import main
from wyr_batch.errors import EngineError, MissingExtraError


def test_without_a_gpu_or_tensorrt_nothing_is_exported(
    no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--fp16", "--tensorrt", "-o", str(tmp_path / "bundle")]) == 2
    said = capsys.readouterr().err
    assert "--tensorrt: got no GPU, expected an NVIDIA GPU and found none" in said
    assert "or leave --tensorrt out" in said
    assert not (tmp_path / "bundle").exists()


def test_a_gpu_without_tensorrt_says_what_to_install(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wyr-batch\[tensorrt\]'"):
        check_tensorrt()


def test_plans_are_built_proven_and_their_speeds_are_in_the_bundle(
    file_bundle: FileBundle,
    trt: FakeTensorRt,
    usable_runtimes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usable_runtimes(tensorrt=trt.__version__)
    monkeypatch.setattr("wyr_batch.export.tensorrt_plans.version_apart", lambda name: trt.__version__)
    parity = file_bundle.folder / "parity.json"
    parity.write_text(json.dumps({"files": {}, "rows_per_s": {"onnx float32": 3.0}}))
    speeds = prove_on_gpu(file_bundle, check_tensorrt(), ("float32", "float16", "bfloat16"), 1)
    assert set(speeds) == {"tensorrt float32 on Fake GPU", "tensorrt float16 on Fake GPU"}
    assert trt.n_built == 2
    assert json.loads(parity.read_text()) == {"files": {}, "rows_per_s": {"onnx float32": 3.0, **speeds}}
    fresh = Bundle(
        *(getattr(file_bundle, name) for name in ("folder", "name", "ranks", "max_tokens", "window_bp")), "mean", ()
    )
    assert fresh.rows_per_s["tensorrt float16 on Fake GPU"] == speeds["tensorrt float16 on Fake GPU"] > 0
    trt.fail = "build_serialized_network"
    (file_bundle.folder / "model.onnx").write_bytes(b"another graph")
    with pytest.raises(EngineError, match="building"):
        prove_on_gpu(file_bundle, check_tensorrt(), ("float16",), 1)
