"""Several precisions and runtimes of one bundle: each proven against float32 torch, chosen by what was faster."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import wyr_batch.export.write_bundle as export_module
from exported_toy import SHORT, models_of, own_checkpoint
from toy_models import predicted, torch_outputs
from wyr_batch.export import proof
from wyr_batch.export.write_bundle import export_bundle

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import RUNTIMES, EngineRequest, choose_runtime, open_engine
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.errors import ModelError
from wyr_batch.models.fused import Fused, FusedOutput
from wyr_batch.proof.compare import FLOAT16, THRESHOLDS, Candidate

WAYS = [(runtime, dtype) for runtime, dtypes in RUNTIMES.items() for dtype in dtypes]


@pytest.mark.parametrize(("runtime", "dtype"), WAYS)
def test_every_way_to_compute_is_proven_and_near_the_reference(runtime: str, dtype: str, exported: Bundle) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(6, 4102, (8, 90)).astype(np.int32)
    ids[:, 0] = 3
    ids[3, 40:] = 1
    asked = np.full((8, 3), -1, np.int32)
    with (
        open_engine(exported, EngineRequest("cpu", runtime, dtype, 1)) as engine,
        open_engine(exported, EngineRequest("cpu", "torch", "float32", 1)) as reference,
    ):
        assert (engine.runtime, engine.dtype) == (runtime, dtype)
        found = EngineOutput(*map(np.array, engine.infer(ids, asked)))
        wanted = reference.infer(ids, asked)
    limit = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2}[dtype]
    np.testing.assert_allclose(found.probs, wanted.probs, atol=limit)
    same = (found.explained_ids == wanted.explained_ids).all(axis=1)
    assert same.mean() >= 0.75
    assert np.abs(found.mask - wanted.mask)[same].mean() < limit
    if dtype != "float32" and runtime != "openvino":
        assert (found.probs != wanted.probs).any(), "it did compute in another precision"


def test_float16_graph_says_what_it_computes(exported: Bundle) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(exported.verified("onnx", "float16")))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    by_op: dict[str, set[int]] = {}
    for node in model.graph.node:
        by_op.setdefault(node.op_type, set()).add(types.get(node.output[0], 0))
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert half in by_op["MatMul"], "the encoder's products"
    assert by_op["LayerNormalization"] == {full}
    assert by_op["LSTM"] == {full}
    # Attention's softmax is half, the classes' are not: they are graph outputs.
    assert types["probs"] == types["mask"] == full


def test_checkpoint_without_its_labels_is_refused(exported: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "toy")
    (folder / "checkpoint" / "explanandum" / "data_processor" / "labels.json").unlink()
    with pytest.raises(ModelError, match=r"labels\.json: got no such file, expected the one bundle\.json lists"):
        open_engine(load_bundle(folder), EngineRequest("cpu", "torch", "float32", 1))


def test_precision_that_fails_stays_out(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exported_before(module: Fused, path: Path, **options: Any) -> None:
        shutil.copy(exported.folder / path.name, path)

    monkeypatch.setattr(export_module, "onnx_from_torch", exported_before)
    strict = replace(FLOAT16, probs=1e-9)
    monkeypatch.setitem(THRESHOLDS, "float16", strict)
    lines: list[str] = []
    checkpoints = own_checkpoint(exported.folder)
    with pytest.raises(ModelError, match="got no float16 that agrees with float32 torch"):
        export_bundle(*checkpoints, tmp_path / "toy", **SHORT, dtypes=("float32", "float16"), progress=lines.append)
    assert any(line.startswith("left out of the bundle:") and "model.fp16.onnx" in line for line in lines)
    assert not (tmp_path / "toy").exists()
    monkeypatch.setitem(THRESHOLDS, "float16", FLOAT16)
    real = proof.candidates

    def without_torch(*arguments: object) -> object:
        found = [way for way in real(*arguments) if way[1] != "torch float16"]  # type: ignore[arg-type]
        return [(*way[:3], damaged(way[3])) if way[1] == "openvino float32" else way for way in found]

    def damaged(candidate: Candidate) -> Candidate:
        return lambda ids, asked: [values * np.float32(0.5) for values in candidate(ids, asked)]

    monkeypatch.setattr(proof, "candidates", without_torch)
    bundle = export_bundle(*checkpoints, tmp_path / "toy", **SHORT, dtypes=("float32", "float16"))
    assert set(bundle.proofs) == {"model.onnx", "model.fp16.onnx"}
    assert not bundle.runtime_proofs
    for runtime, dtype in (("openvino", "float32"), ("torch", "float16")):
        with pytest.raises(ModelError, match=f"got no passing record of {runtime} {dtype}"):
            open_engine(bundle, EngineRequest("cpu", runtime, dtype, 1))


def test_auto_takes_what_is_proven_and_was_faster(exported: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "toy")
    content = json.loads((folder / "parity.json").read_text())

    def chosen(dtype: str = "float32", **speeds: float) -> str:
        changed = content | {"rows_per_s": {f"{name} float32": value for name, value in speeds.items()}}
        (folder / "parity.json").write_text(json.dumps(changed))
        return choose_runtime(load_bundle(folder), dtype)[0]

    assert chosen(onnx=10, openvino=14) == "openvino"
    assert chosen(onnx=14, openvino=10) == "onnx"
    assert chosen("bfloat16", onnx=14, openvino=10) == "openvino", "ONNX Runtime has no bfloat16"
    assert chosen("float16", onnx=14, openvino=10) == "onnx"
    del content["runtimes"]["openvino float32"]
    assert chosen(onnx=10, openvino=14) == "onnx", "not proven"


# 64 rows of 2,047 tokens: each attention matrix of the toy is 4.3 GB.
LARGE = pytest.param(
    2047,
    (64,),
    marks=pytest.mark.skipif("WYR_TEST_LARGE" not in os.environ, reason="takes a machine of 24 GB; WYR_TEST_LARGE=1"),
)


@pytest.mark.parametrize(
    ("n_tokens", "batches"),
    [*((n, (1, 3, 64)) for n in (7, 65, 251)), (500, (1, 3, 16)), (2047, (1, 3)), LARGE],
)
def test_other_lengths_batches_tails_and_zero_masks(
    n_tokens: int, batches: tuple[int, ...], reference: Fused, candidates: dict[str, Candidate]
) -> None:
    rng = np.random.default_rng(n_tokens)
    for n_rows in batches:
        ids = np.full((n_rows, n_tokens + 5), 1, np.int32)  # five columns of padding in every row
        ids[:, 0] = 3
        ids[:, 1:n_tokens] = rng.integers(6, 4102, (n_rows, n_tokens - 1))
        ids[-1, max(1, n_tokens // 2) :] = 1
        asked = predicted(ids)
        asked[0] = (0, 0, 0)  # the classes whose masks are exactly 0
        wanted = torch_outputs(reference, ids, asked)
        assert not wanted.mask[0].any()
        for name, candidate in candidates.items():
            found = dict(zip(FusedOutput._fields, candidate(ids, asked), strict=True))
            for field in ("mask", "probs", "masked_probs"):
                assert np.isfinite(found[field]).all(), (name, field)
                limit = 0.05 if "float16" in name else 1e-5
                np.testing.assert_allclose(found[field], getattr(wanted, field), atol=limit, err_msg=name)


@pytest.fixture(scope="module")
def reference(exported: Bundle) -> Fused:
    """The torch models that the bundle was made from."""
    return models_of(exported)


@pytest.fixture(scope="module")
def candidates(exported: Bundle, reference: Fused) -> dict[str, Candidate]:
    """What the export proves of float32 and float16, by runtime and precision."""

    def as_list(candidate: Candidate) -> Candidate:
        def run(ids: np.ndarray, asked: np.ndarray) -> list[np.ndarray]:
            out = candidate(ids, asked)
            return [out[name] for name in FusedOutput._fields] if isinstance(out, dict) else list(out)

        return run

    ways = proof.candidates(exported.folder, reference, ("float32", "float16"), 1)
    whole = [way for way in ways if way[0] != proof.WITHOUT_MASKED_CALLS]
    return {f"{name} {dtype}": as_list(candidate) for _, name, dtype, candidate in whole}
