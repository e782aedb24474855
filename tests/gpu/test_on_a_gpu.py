"""What needs an NVIDIA GPU: every runtime that is here is right on it, in company and alone, run after run.

pytest -m gpu tests/gpu
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wyr_batch.bundle import load_bundle
from wyr_batch.choose import GPU_RUNTIMES, EngineRequest, open_engine, open_engines
from wyr_batch.cli import main
from wyr_batch.engines.cuda import cuda_device, find_gpus
from wyr_batch.engines.cuda_slot import Slot
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.errors import MissingExtraError, UsageError
from wyr_batch.proof.first_use import GPU_FLOAT32
from wyr_batch.proof.versions import runtime_version

GPUS, WHY_NOT = find_gpus()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason=WHY_NOT or "a GPU is here")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "reads.fastq.gz"
# The starter holds no float16 graph: halves come from the checkpoint, by torch.
WAYS = [("tensorrt", "float32"), ("torch", "float32"), ("torch", "float16"), ("onnx", "float32")]


@pytest.fixture(params=WAYS, ids=" ".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    runtime, dtype = request.param
    assert dtype in GPU_RUNTIMES[runtime]
    try:
        runtime_version(runtime)
    except (MissingExtraError, UsageError) as error:
        pytest.skip(str(error))
    return runtime, dtype


def batch(n_rows: int, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(n_rows).integers(6, 4102, (n_rows, n_tokens)).astype(np.int32)
    ids[:, 0], ids[n_rows // 2, n_tokens // 2 :] = 3, 1
    return ids, np.full((n_rows, len(load_bundle().ranks)), -1, np.int32)


def test_driver_copies_there_and_back() -> None:
    slot = Slot(cuda_device(GPUS[0]))
    for n in (1, 1000, 10):
        values = np.arange(3 * n, dtype=np.float32).reshape(3, n)
        slot.send("x", values)
        slot.expect("x", values.shape, np.float32)
        np.testing.assert_array_equal(slot.receive()["x"], values)
    slot.close()


def test_opens_only_if_proven_and_rows_do_not_depend_on_company(way: tuple[str, str]) -> None:
    limit = GPU_FLOAT32.padding if way[1] == "float32" else 5e-3
    with open_engine(
        load_bundle(), EngineRequest("cuda", *way, 2)
    ) as engine:  # compares with float32 on the CPU, or raises
        ids, asked = batch(9, 128)
        together = engine.infer(ids, asked)
        for row in (0, 4, 8):
            n = int((ids[row] != 1).sum())
            alone = engine.infer(ids[row : row + 1, :n].copy(), together.explained_ids[row : row + 1].copy())
            np.testing.assert_allclose(alone.probs[0], together.probs[row], atol=limit)
            assert np.abs(alone.mask[0] - together.mask[row, :n]).mean() < limit


def test_two_in_flight_give_what_one_gives(way: tuple[str, str]) -> None:
    engines = open_engines(load_bundle(), EngineRequest("cuda", *way, 2))
    assert sum(engine.in_flight for engine in engines) == 2
    batches = [batch(n, 8 * n) for n in (3, 17, 8, 25)] * 5
    wanted = [engines[0].infer(*each) for each in batches[:4]]
    found: dict[int, list[EngineOutput]] = {}

    def run(index: int) -> None:
        engine, outputs = engines[index], []
        under_way = deque([engine.start(*each) for each in batches[: engine.in_flight - 1]])
        for each in batches[len(under_way) :]:
            under_way.append(engine.start(*each))
            outputs.append(engine.finish(under_way.popleft()))
        found[index] = outputs + [engine.finish(each) for each in under_way]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.close()
    assert len(found) == len(engines)
    for outputs in found.values():
        assert len(outputs) == len(batches)
        for i, out in enumerate(outputs):
            np.testing.assert_allclose(out.probs, wanted[i % 4].probs, atol=1e-3)


def test_run_end_to_end_calls_what_the_cpu_calls(way: tuple[str, str], tmp_path: Path) -> None:
    tables = []
    for name, words in (("cpu", ["-x", "cpu"]), ("gpu", ["-x", "cuda", "--runtime", way[0], "--dtype", way[1]])):
        output = tmp_path / f"{name}.parquet"
        assert main(["run", str(EXAMPLE), "-q", "-o", str(output), *words]) == 0
        tables.append(pq.read_table(output))
    assert tables[0]["read_id"] == tables[1]["read_id"]
    for rank in load_bundle().ranks:
        ours, theirs = (table[rank.name].to_pylist() for table in tables)
        assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) >= 0.995
