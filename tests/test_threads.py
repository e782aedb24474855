"""One Masker or engine used from many threads, from asyncio, after a fork, after its end, and short of memory."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from toy_engine import ToyEngine

import wyr_batch
from wyr_batch.api import Masker, Prediction
from wyr_batch.engines.base import is_out_of_memory
from wyr_batch.engines.signature import Int32s
from wyr_batch.errors import EngineError, InputError

RUNTIMES = ("onnx", "openvino", "torch")
N_READS = 64


@pytest.fixture(scope="module", params=RUNTIMES)
def masker(request: pytest.FixtureRequest) -> Iterator[Masker]:
    with wyr_batch.load(runtime=request.param, device="cpu", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def reads() -> list[str]:
    """Reads of one length, so that a mix-up would not show in shapes."""
    chosen = random.Random(1)
    return ["".join(chosen.choices("ACGT", k=120)) for _ in range(N_READS)]


@pytest.fixture(scope="module")
def alone(masker: Masker, reads: list[str]) -> list[Prediction]:
    return [masker.predict([read])[0] for read in reads]


def differing(found: list[Prediction], wanted: list[Prediction]) -> list[int]:
    return [
        i
        for i, (a, b) in enumerate(zip(found, wanted, strict=True))
        if a.labels != b.labels or a.masked_labels != b.masked_labels or not np.allclose(a.mask, b.mask, atol=1e-5)
    ]


def test_eight_threads_give_what_one_gives(masker: Masker, reads: list[str], alone: list[Prediction]) -> None:
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda read: masker.predict([read])[0], reads))
    assert not differing(together, alone)


def test_asyncio_gives_what_one_thread_gives(masker: Masker, reads: list[str], alone: list[Prediction]) -> None:
    async def predict_all() -> list[list[Prediction]]:
        return await asyncio.gather(*(asyncio.to_thread(masker.predict, [read]) for read in reads))

    assert not differing([found for (found,) in asyncio.run(predict_all())], alone)


def test_an_engine_hands_out_memory_that_is_not_written_again(masker: Masker) -> None:
    ids = np.random.default_rng(0).integers(6, 4102, (2, 4, 30)).astype(np.int32)
    ids[:, :, 0] = 3
    asked = np.full((4, len(masker.bundle.ranks)), -1, np.int32)
    first = masker.engine.infer(ids[0], asked)
    copies = [values.copy() for values in first]
    masker.engine.infer(ids[1], asked)
    for values, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(values, copy)


def test_after_a_fork_an_engine_says_so_and_a_new_one_works_elsewhere(masker: Masker) -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            masker.predict(["ACGT"])
        except EngineError as error:
            os.write(write_end, str(error).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    assert f"got a call in process {child}, expected one in process {os.getpid()}" in said
    assert masker.predict(["ACGT"])[0].status == "ok"


def test_a_closed_engine_says_so() -> None:
    with wyr_batch.load(runtime="onnx", device="cpu", threads=1) as opened:
        pass
    opened.close()
    with pytest.raises(EngineError, match="got a batch after it was closed"):
        opened.predict(["ACGT"])


class FailsOnMany(ToyEngine):
    """Fails on reads that hold the token of AAAAAA."""

    def _infer(self, input_ids: Int32s, explain_ids: Int32s):  # type: ignore[no-untyped-def]
        if (input_ids == 6).any():
            raise RuntimeError("bad luck")
        return super()._infer(input_ids, explain_ids)


def test_predict_says_what_run_says_of_reads_that_fail_or_are_empty() -> None:
    engine = FailsOnMany()
    good, failed, empty, windowed = Masker(engine.bundle, engine).predict(["ACGTACGT", "AAAAAAAA", "", "ACGTAC" * 30])
    assert [read.status for read in (good, failed, empty, windowed)] == ["ok", "failed", "empty", "windowed"]
    assert good.reason is None
    assert failed.reason is not None
    assert "bad luck" in failed.reason
    for read in (failed, empty):
        assert read.labels is read.masked_labels is None
        assert np.isnan(read.probs).all()
        assert np.isnan(read.masked_probs).all()
        assert np.isnan(read.mask).all()
    assert len(failed.mask) == len(failed.token_start) == 3


@pytest.mark.parametrize("given", ["ACGTAC", b"ACGTAC", ["ACGTAC"], [b"ACGTAC"], (r for r in ["ACGTAC\n"])])
def test_predict_takes_what_can_only_mean_reads(given: object) -> None:
    engine = ToyEngine()
    (read,) = Masker(engine.bundle, engine).predict(given)  # type: ignore[arg-type]
    assert len(read.mask) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "got NoneType, expected texts"),
        (7, "got int, expected texts"),
        ({"name": "ACGT"}, "got dict, expected texts in some order"),
        (["ACGT", None], "item 2: got NoneType, expected text"),
        ([b"ACGT", 65], "item 2: got int, expected text"),
        (["ACGT", "AC1T"], "sequence 2: got '1' in 'AC1T', expected letters"),
        (["é"], "sequence 1: got "),
    ],
)
def test_predict_refuses_what_is_no_sequence(given: object, message: str) -> None:
    engine = ToyEngine()
    with pytest.raises(InputError) as caught:
        Masker(engine.bundle, engine).predict(given)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "said", ["std::bad_alloc", "could not create a primitive", "can't alloc", "Resource temporarily unavailable"]
)
def test_what_runtimes_say_where_memory_is_short(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))


# A batch under a limit of memory, then without one: either its values are right, or it is OutOfMemory.
SHORT = """
import resource, sys
import numpy as np
import wyr_batch
from wyr_batch.errors import EngineError, OutOfMemory

engine, reference = (wyr_batch.load(runtime=name, device="cpu", threads=2).engine for name in (sys.argv[1], "onnx"))
ids = np.random.default_rng(0).integers(6, 4102, (8, 251)).astype(np.int32)
ids[:, 0] = 3
asked = np.full((8, len(engine.bundle.ranks)), -1, np.int32)
wanted = reference.infer(ids, asked)
engine.infer(ids[:4, :51].copy(), asked[:4].copy())

def right():
    return all(np.allclose(a, b, atol=1e-4) for a, b in zip(engine.infer(ids, asked), wanted))

size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (int(sys.argv[2]) << 10), resource.RLIM_INFINITY))
try:
    short = "right" if right() else "wrong"
except OutOfMemory:
    short = "out of memory"
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(short, "right" if right() else "wrong", sep=", ")
"""


@pytest.mark.parametrize("kib", [1000, 10_000])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_short_of_memory_nothing_is_wrong_and_afterwards_all_is_right(runtime: str, kib: int) -> None:
    done = subprocess.run([sys.executable, "-c", SHORT, runtime, str(kib)], capture_output=True, text=True)
    assert done.stdout in ("out of memory, right\n", "right, right\n"), done.stderr
    assert kib > 1000 or done.stdout.startswith("out of memory")
