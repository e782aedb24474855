"""TensorRT engines over the stand-ins for the driver and for TensorRT: results, cache, checks, memory. No GPU."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import ILLEGAL_ADDRESS, FakeLibrary
from fake_tensorrt import FakeTensorRt
from same_rows import differences
from toy_engine import RANKS, FileBundle, ToyEngine

from wyr_batch.cache import read_json, save_plan
from wyr_batch.choose import EngineRequest, open_engine, open_engines
from wyr_batch.engines.base import Engine
from wyr_batch.engines.cuda import Gpu
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.engines.tensorrt import TensorRtEngine
from wyr_batch.engines.tensorrt_plan import BUCKET_TOKENS, plan_key, plan_profiles
from wyr_batch.errors import EngineError, MissingExtraError, OutOfMemory, UsageError
from wyr_batch.explain.step import ExplainStep
from wyr_batch.job.overlap import run_overlapped
from wyr_batch.job.stats import RunStats
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.tokens.plan import Planner, Work

PREDICTED = np.full(2, -1, np.int32)


def use(fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


def opened(bundle: FileBundle, dtype: str = "float16") -> Engine:
    return open_engine(bundle, EngineRequest("cuda", "tensorrt", dtype, 1))


def batch(n_rows: int, n_tokens: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = rng.integers(6, 4102, (n_rows, n_tokens)).astype(np.int32)
    ids[:, 0] = 3
    for row in ids[1:]:
        row[rng.integers(1, n_tokens + 1) :] = 1
    return ids


def asked(n_rows: int) -> np.ndarray:
    return np.full((n_rows, len(RANKS)), -1, np.int32)


def assert_toy(out: EngineOutput, ids: np.ndarray) -> None:
    for name, values in ToyEngine().infer(ids, asked(len(ids)))._asdict().items():
        np.testing.assert_array_equal(getattr(out, name), values, err_msg=name)


def test_two_engines_of_one_plan_give_the_toys_results(
    file_bundle: FileBundle, library: FakeLibrary, trt: FakeTensorRt
) -> None:
    engines = open_engines(file_bundle, EngineRequest("cuda", "tensorrt", "auto", 1))
    assert [engine.describe() for engine in engines] == ["tensorrt float16 on cuda:0"] * 2
    assert trt.n_built == 1
    outputs = []
    for n_rows, n_tokens in ((3, 7), (1, 64), (40, 33), (2, 1), (1, 1), (5, 64)):
        for engine in engines:
            ids = batch(n_rows, n_tokens, n_rows)
            outputs.append((engine.infer(ids, asked(n_rows)), ids))
            assert_toy(*outputs[-1])
    assert not trt.unchecked
    for engine in engines:
        engine.close()
        engine.close()
    assert library.clean
    for out, ids in outputs:
        assert_toy(out, ids)


def test_more_rows_than_a_profile_holds_are_run_in_pieces(file_bundle: FileBundle, trt: FakeTensorRt) -> None:
    with opened(file_bundle) as engine:
        assert isinstance(engine, TensorRtEngine)
        most = engine._plan.profiles[-1][2]
        ids = np.tile(batch(1, 64), (2 * most + 1, 1))
        ids[:, 1] = 6 + np.arange(len(ids)) % 4000
        assert_toy(engine.infer(ids, asked(len(ids))), ids)


@pytest.mark.parametrize(("dtype", "version"), [("float32", "10.12.0.36"), ("float16", "11.4.0.106")])
def test_no_plan_has_tf32_and_profiles_hold_every_length(
    dtype: str, version: str, file_bundle: FileBundle, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use(FakeTensorRt(library, version), monkeypatch)
    with opened(file_bundle, dtype) as engine:
        assert engine.dtype == dtype
        assert fake.last_plan["tf32"] is False  # nor in the float32 parts of a float16 graph
        shapes = [profile["input_ids"] for profile in fake.last_plan["profiles"]]
        assert shapes[0][0] == [1, 1]
        assert fake.last_plan["shrinks"] is True
        assert shapes[-1][2][1] == file_bundle.max_tokens
        assert all(low[0][1] == high[2][1] + 1 for high, low in pairwise(shapes))
        assert all(profile["explain_ids"][2][1] == len(RANKS) for profile in fake.last_plan["profiles"])
        for n_tokens in range(1, file_bundle.max_tokens + 1):
            ids = batch(2, n_tokens)
            assert_toy(engine.infer(ids, asked(2)), ids)


@pytest.mark.parametrize("max_tokens", [5, 64, 512, 2048, 5000])
def test_profiles_take_the_whole_budget_and_no_more(max_tokens: int) -> None:
    profiles = plan_profiles(max_tokens)
    assert len(profiles) <= len(BUCKET_TOKENS) + 1
    assert [p.least for p in profiles] == [1, *(p.most + 1 for p in profiles[:-1])]
    for profile in profiles:
        assert profile.rows == max(1, 49152 // profile.most), "a batch of the longest rows is one piece"
        _, usual, largest = profile.shapes()
        assert usual == largest
        assert largest[0] * largest[1] <= max(49152, profile.most)


def test_scratch_memory_is_that_of_the_batch(file_bundle: FileBundle, library: FakeLibrary, trt: FakeTensorRt) -> None:
    with opened(file_bundle) as engine:
        for n_rows, n_tokens in ((2, 9), (30, 60), (1, 1)):
            engine._slot.make_room()  # type: ignore[attr-defined]
            engine.infer(batch(n_rows, n_tokens), asked(n_rows))
            assert engine._slot._scratch.n_bytes == 64 * n_rows * n_tokens  # type: ignore[attr-defined]


def test_pieces_of_a_batch_are_alike(
    file_bundle: FileBundle, trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(file_bundle) as engine:
        assert isinstance(engine, TensorRtEngine)
        most, sizes, run = engine._plan.profiles[0][2], [], engine._run

        def count(index: int, input_ids: np.ndarray, explain_ids: np.ndarray) -> EngineOutput:
            sizes.append(len(input_ids))
            return run(index, input_ids, explain_ids)

        monkeypatch.setattr(engine, "_run", count)
        ids = batch(most + 1, 8)
        assert_toy(engine.infer(ids, asked(len(ids))), ids)
        assert sizes == [most // 2 + 1, most // 2]


CALLS = {
    "parse_from_file": "a graph TensorRT can parse",
    "add_optimization_profile": "adding the profile",
    "build_serialized_network": "building",
    "deserialize_cuda_engine": "loading a plan",
    "create_execution_context": "making a context",
    "set_optimization_profile_async": "choosing profile",
    "set_input_shape": "setting input_ids to",
    "update_device_memory_size_for_shapes": "sizing scratch memory",
    "set_tensor_address": "setting the address",
    "infer_shapes": "got no shape of input_ids",
    "execute_async_v3": "running",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_is_an_error_that_names_it(
    call: str, file_bundle: FileBundle, trt: FakeTensorRt, library: FakeLibrary
) -> None:
    engine = None
    if call in list(CALLS)[4:]:
        engine = opened(file_bundle)
        engine._contexts.clear()  # type: ignore[attr-defined]
    trt.fail, trt.says = call, "the reason it logged"

    def fail() -> None:
        (engine or opened(file_bundle)).infer(batch(2, 9), asked(2))

    with pytest.raises(EngineError, match=CALLS[call]) as raised:
        fail()
    silent = (
        "add_optimization_profile",
        "create_execution_context",
        "infer_shapes",
        "update_device_memory_size_for_shapes",
    )
    assert call in silent or "the reason it logged" in str(raised.value)
    assert not trt.unchecked
    if engine:
        trt.fail = ""
        assert_toy(engine.infer(batch(2, 9), asked(2)), batch(2, 9))
        engine.close()
    assert library.clean


def test_cached_plan_is_used_and_another_key_says_what_differs(
    file_bundle: FileBundle, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")

    def built(version: str = "11.4.0.106", dtype: str = "float16") -> str:
        """Open with a TensorRT; return what was said about building, '' if nothing was built."""
        fake = use(FakeTensorRt(library, version), monkeypatch)
        caplog.clear()
        opened(file_bundle, dtype).close()
        lines = [r.getMessage() for r in caplog.records if "building a plan" in r.getMessage()]
        assert fake.n_built == len(lines) <= 1
        return lines[0] if lines else ""

    assert "none of toy-float16 has been built here" in built()
    assert built() == ""
    assert "tensorrt: got 11.4.0.106, expected 10.14.1" in built("10.14.1")
    assert built() == built("10.14.1") == ""
    library.names = ("Other GPU",)
    assert "gpu: got Fake GPU, expected Other GPU" in built()
    (file_bundle.folder / "model.onnx").write_bytes(b"another graph")
    said = built()
    assert "onnx_sha256: got " in said
    assert "gpu" not in said.replace("Other GPU", ""), "the likest plan is named, not just any"
    assert "none of toy-float32" in built(dtype="float32")


def test_damaged_plan_and_one_that_does_not_load_are_built_again(
    file_bundle: FileBundle, library: FakeLibrary, trt: FakeTensorRt, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")
    opened(file_bundle).close()
    (plan,) = (tmp_path / "cache" / "plans").glob("*.plan")
    good = plan.read_bytes()
    plan.write_bytes(good[:-3])
    opened(file_bundle).close()
    assert f"{plan.name} is not the file that was written" in caplog.text
    assert plan.read_bytes() == good

    # As after an update of the driver: the key is the same, and TensorRT refuses the plan.
    content = json.loads(good) | {"version": "of another build"}
    sidecar = read_json(plan.with_suffix(".json"))
    assert sidecar is not None
    save_plan("toy-float16", sidecar["key"], json.dumps(content).encode(), {})
    with opened(file_bundle) as engine:
        assert_toy(engine.infer(batch(3, 20), asked(3)), batch(3, 20))
    assert "the cached one could not be loaded: Serialization assertion" in caplog.text
    assert trt.n_built == 3


def test_timing_cache_is_kept_and_one_of_another_gpu_is_left(
    file_bundle: FileBundle, trt: FakeTensorRt, tmp_path: Path
) -> None:
    opened(file_bundle).close()
    (path,) = (tmp_path / "cache").glob("timing-*.cache")
    assert path.read_bytes() == b"timing "
    opened(file_bundle, "float32").close()
    assert path.read_bytes() == b"timing timing "
    path.write_bytes(b"of another GPU")
    (file_bundle.folder / "model.onnx").write_bytes(b"another graph")
    opened(file_bundle, "float32").close()
    assert path.read_bytes() == b"timing "


def test_key_holds_what_a_plan_depends_on(trt: FakeTensorRt) -> None:
    gpu = Gpu(0, "Fake GPU", (9, 0), 1 << 34, "CUDA 13.0")
    key = plan_key(trt, "abc", gpu, "float16", plan_profiles(64))
    assert key["compute_capability"] == "9.0"
    others = [
        plan_key(trt, "abd", gpu, "float16", plan_profiles(64)),
        plan_key(trt, "abc", Gpu(0, "Fake GPU", (8, 0), 1 << 34, "CUDA 13.0"), "float16", plan_profiles(64)),
        plan_key(trt, "abc", gpu, "float32", plan_profiles(64)),
        plan_key(trt, "abc", gpu, "float16", plan_profiles(65)),
    ]
    assert all(other != key for other in others)
    assert plan_key(trt, "abc", Gpu(3, "Fake GPU", (9, 0), 1 << 34, "CUDA 12.8"), "float16", plan_profiles(64)) == key


@pytest.mark.parametrize(
    "change", [{"mask": None}, {"probs": "INT32"}, {"input_ids": "FLOAT"}, {"extra": "FLOAT"}], ids=str
)
def test_engine_of_another_layout_is_refused(
    change: dict[str, Any], file_bundle: FileBundle, trt: FakeTensorRt
) -> None:
    trt.tensors = {name: kind for name, kind in {**trt.tensors, **change}.items() if kind}
    with pytest.raises(EngineError, match="TensorRT: got tensors"):
        opened(file_bundle)


def test_out_of_device_memory_halves_and_goes_on(
    file_bundle: FileBundle, library: FakeLibrary, trt: FakeTensorRt
) -> None:
    with opened(file_bundle) as engine:
        engine._slot.close()  # type: ignore[attr-defined]
        engine = TensorRtEngine(file_bundle, "float16", engine._plan)  # type: ignore[attr-defined]
        library.free_bytes = 40_000
        with pytest.raises(OutOfMemory, match=r"CUDA_ERROR_OUT_OF_MEMORY \(out of memory\)' on 100 reads"):
            engine.infer(batch(100, 64), asked(100))
        reads = ["".join(np.random.default_rng(i).choice(list("ACGT"), 60)) for i in range(100)]
        work = Planner(10, 2, 100_000, pad_to=8).plan(ReadChunk.from_sequences(reads))
        done, wanted = ExplainStep(engine, PREDICTED)(work), ExplainStep(ToyEngine(), PREDICTED)(work)
        np.testing.assert_array_equal(done.mask, wanted.mask)
        assert not done.failed
        engine.close()
    trt.fail, trt.says = "execute_async_v3", "Cuda failure: out of memory"
    library.free_bytes = 1 << 30
    engine = TensorRtEngine(file_bundle, "float16", engine._plan)
    with pytest.raises(OutOfMemory):
        engine.infer(batch(2, 9), asked(2))


def test_driver_error_names_the_call(file_bundle: FileBundle, library: FakeLibrary, trt: FakeTensorRt) -> None:
    with opened(file_bundle) as engine:
        library.codes["cuMemcpyHtoDAsync_v2"] = ILLEGAL_ADDRESS
        with pytest.raises(EngineError, match="cuMemcpyHtoDAsync_v2: CUDA_ERROR_ILLEGAL_ADDRESS"):
            engine.infer(batch(2, 9), asked(2))
        library.codes.clear()


def test_overlapped_run_on_all_gpus_gives_the_rows_of_one_engine(
    file_bundle: FileBundle, library: FakeLibrary, trt: FakeTensorRt
) -> None:
    library.names = ("Fake GPU", "Fake GPU")
    rng = np.random.default_rng(0)
    chunks = [["".join(rng.choice(list("ACGTN"), rng.integers(0, 200))) for _ in range(9)] for _ in range(12)]
    engines = open_engines(file_bundle, EngineRequest("cuda:all", "tensorrt", "float16", 1))
    assert [engine.device for engine in engines] == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert trt.n_built == 1, "GPUs of one model share a plan"
    planner = Planner(10, 2, 300, pad_to=engines[0].pad_to)

    def works() -> Iterator[Work]:
        for reads in chunks:
            yield planner.plan(ReadChunk.from_sequences(reads))

    builder = RowBuilder(RANKS, rank_masks=True)
    found: list[dict[str, Any]] = []
    run_overlapped(
        works(),  # type: ignore[arg-type]
        [ExplainStep(engine, PREDICTED) for engine in engines],
        lambda done: found.extend(builder.build(done).to_pylist()),
        RunStats(),
    )
    toy = ExplainStep(ToyEngine(), PREDICTED)
    wanted = [row for work in works() for row in builder.build(toy(work)).to_pylist()]
    assert len(found) == len(wanted) == 108
    for row, twin in zip(found, wanted, strict=True):
        assert not differences(row, twin, 1e-6)
    for engine in engines:
        engine.close()
    assert library.clean


def test_missing_and_old_tensorrt_say_what_to_install(
    file_bundle: FileBundle, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"--runtime tensorrt: .*pip install 'wyr-batch\[tensorrt\]'"):
        opened(file_bundle, "auto")
    use(FakeTensorRt(library, "10.9.0"), monkeypatch)
    with pytest.raises(UsageError, match=r"got TensorRT 10\.9\.0, expected 10\.12 or later"):
        opened(file_bundle, "auto")
