"""Parts of the GPU kit: is an engine right, and how fast is it on batches of equal rows?

The proof comes first, and a row of times says what came of it; it is timed either way.
"""

from __future__ import annotations

import json
import pickle
import statistics
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from benchmarks.kit import per_s, random_batch, repeated
from benchmarks.speed.gpu.machine import BUDGET_TOKENS, Machine, Skipped, tried
from wyr_batch.bundle import Bundle
from wyr_batch.choose import RUNTIMES, EngineRequest, open_engine
from wyr_batch.engines.base import Engine, Started
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.host import available_cpus
from wyr_batch.proof.batches import token_arrays
from wyr_batch.proof.compare import Remembered, compare
from wyr_batch.proof.first_use import thresholds_of
from wyr_batch.ranks import rank_slices
from wyr_batch.tokens.kmers import PAD_ID

PROOF_READS = 64


class Reference:
    """Float32 on the CPU, computed once for each model and kept in a file: no runtime needs another in its process."""

    def __init__(self, machine: Machine, model: str, runtime: str) -> None:
        self._path = machine.folder / f"reference-{model}.pickle"
        self._bundle, self._runtime = machine.bundle(model), runtime
        self._engine: Engine | None = None
        self._open = ExitStack()
        self.outputs: Remembered = pickle.loads(self._path.read_bytes()) if self._path.exists() else {}

    def __call__(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        """Compute what the file does not hold, with the runtime that this process has loaded already.

        Raises: Skipped if that one does not compute on a CPU.
        """
        if self._engine is None:
            if self._runtime not in RUNTIMES:
                raise Skipped("no float32 on the CPU to compare with: the parts proof and starter have not kept it")
            request = EngineRequest("cpu", self._runtime, "float32", available_cpus())
            self._engine = self._open.enter_context(open_engine(self._bundle, request))
        return self._engine.infer(input_ids, explain_ids)

    def close(self) -> None:
        """Keep what has been computed."""
        if self._engine is not None:
            self._open.close()
            self._path.write_bytes(pickle.dumps(self.outputs))


def prove(machine: Machine, model: str, runtime: str, dtype: str) -> dict[str, Any]:
    """Compare one way with float32 on the CPU, and keep the verdict for the rows of times."""
    reference = Reference(machine, model, runtime)
    with machine.engines(model, runtime, dtype, in_flight=1) as engines:
        (engine,) = engines
        record = compare(
            engine.infer,
            reference,
            rank_slices([len(rank.labels) for rank in engine.bundle.ranks]),
            engine.bundle.max_tokens,
            thresholds=thresholds_of(engine),
            reads=token_arrays()[: 8 if machine.quick else PROOF_READS],
            remembered=reference.outputs,
        )
    reference.close()
    machine.note(f"verdict-{model}-{runtime}-{dtype}", record.verdict)
    return record.to_json()


def proof(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Prove the published size in half precision with torch."""
    yield f"full_size torch {machine.half}", prove(machine, "full_size", "torch", machine.half)


def sweep(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time lengths and batch budgets, one and two batches in flight, and note what is fastest on reads of 1,500 bp."""
    usual, others = machine.window_tokens, ((32,) if machine.quick else (64, 512))
    budgets = (256,) if machine.quick else (98304, 49152, 131072, 65536, 32768, 16384, 8192)
    rows: list[dict[str, Any]] = []
    with machine.engines("full_size", "torch", machine.half) as engines:
        for n_tokens in (usual, *others):
            for budget in budgets if n_tokens == usual else budgets[:2]:
                for in_flight in range(1, n_in_flight(engines) + 1):
                    rows.append(tried(timed_row, machine, "full_size", engines, n_tokens, budget, in_flight))
                    note_best(machine, rows)
                    yield "rows", rows


def n_in_flight(engines: list[Engine]) -> int:
    """Return how many batches the engines have room for."""
    return sum(engine.in_flight for engine in engines)


def note_best(machine: Machine, rows: list[dict[str, Any]]) -> None:
    """Note the fastest row of the window's length."""
    usual = [row for row in rows if row.get("n_tokens") == machine.window_tokens]
    if usual:
        machine.note("best", max(usual, key=lambda row: float(row["reads_per_s"])))


def timed_row(
    machine: Machine, model: str, engines: list[Engine], n_tokens: int, budget: int, in_flight: int
) -> dict[str, Any]:
    """Time batches of equal rows, laid out as a run does it; median of three rounds.

    Args:
        engines: one with room for several batches, or one for each.
        n_tokens: of each row, `<cls>` counted.
        budget: padded tokens of a batch.
        in_flight: batches at once: started one after the other by one thread, or each on an engine of its own.
    """
    engine = engines[0]
    engines, room = (engines, in_flight) if len(engines) == 1 else (engines[:in_flight], 1)
    padded = -(-n_tokens // engine.pad_to) * engine.pad_to if engine.pads_equal_rows else n_tokens
    n_rows = max(1, budget // padded)
    ids, asked = random_batch(n_rows, padded, len(engine.bundle.ranks))
    ids[:, n_tokens:] = PAD_ID
    batches = 3 if machine.quick else 6

    def all_at_once() -> None:
        threads = [threading.Thread(target=feed, args=(engine, (ids, asked), batches, room)) for engine in engines]
        for thread in threads:  # they only wait: on a GPU an engine runs its batches in a thread of its own
            thread.start()
        for thread in threads:
            thread.join()

    for each in engines:  # errors of a batch are raised here; and the thread of each is warm
        each.infer(ids, asked)
    reads_per_s = statistics.median(per_s(n_rows * batches * len(engines), repeated(all_at_once, 3, warm_up=False)))
    return {
        "model": model,
        "runtime": engine.runtime,
        "dtype": engine.dtype,
        "verdict": machine.verdict(model, engine.runtime, engine.dtype),
        "n_tokens": n_tokens,
        "padded_tokens": padded,
        "budget_tokens": budget,
        "rows": n_rows,
        "in_flight": in_flight,
        "reads_per_s": reads_per_s,
        "tokens_per_s": reads_per_s * n_tokens,
        **machine.mfu(reads_per_s * flop_per_read(engine.bundle, n_tokens)),
    }


def feed(engine: Engine, batch: tuple[Any, Any], n_batches: int, room: int) -> None:
    """Run a batch so many times, up to `room` of them under way."""
    under_way: deque[Started] = deque()
    for _ in range(n_batches):
        under_way.append(engine.start(*batch))
        if len(under_way) == room:
            engine.finish(under_way.popleft())
    while under_way:
        engine.finish(under_way.popleft())


def flop_per_read(bundle: Bundle, n_tokens: int) -> float:
    """Return the arithmetic of both passes of the encoder over one read; the Explainer (some 1 %) is not counted."""
    path = bundle.folder / "checkpoint" / "explanandum" / "base_model" / "config.json"
    config = json.loads(path.read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    per_token = 2 * (4 * width**2 + 3 * width * inner) + 4 * width * n_tokens
    flop: float = 2 * config["num_hidden_layers"] * per_token * n_tokens
    return flop


def prove_and_time(machine: Machine, model: str, runtime: str, dtype: str) -> Iterator[tuple[str, Any]]:
    """Prove one way, then time it, whatever the proof said."""
    name = f"{model} {runtime} {dtype}"
    yield f"{name}, proof", tried(prove, machine, model, runtime, dtype)
    yield f"{name}, rows", tried(timed_rows, machine, model, runtime, dtype)


def timed_rows(machine: Machine, model: str, runtime: str, dtype: str) -> list[dict[str, Any]]:
    """Time one way at two budgets."""
    budgets = (256,) if machine.quick else (BUDGET_TOKENS, 2 * BUDGET_TOKENS)
    with machine.engines(model, runtime, dtype) as engines:
        shape = model, engines, machine.window_tokens
        return [tried(timed_row, machine, *shape, budget, n_in_flight(engines)) for budget in budgets]


def float32(machine: Machine) -> Iterator[tuple[str, Any]]:
    """The published size in float32 with torch."""
    yield from prove_and_time(machine, "full_size", "torch", "float32")


def starter(machine: Machine) -> Iterator[tuple[str, Any]]:
    """The starter with torch."""
    yield from prove_and_time(machine, "starter", "torch", machine.half)


def each_graph(machine: Machine, runtime: str) -> Iterator[tuple[str, Any]]:
    """Both models' graphs in a runtime, those that were exported."""
    for model in ("full_size", "starter"):
        for dtype in dict.fromkeys((machine.half, "float32")):
            try:
                machine.bundle(model).verified("onnx", dtype)
            except Skipped as reason:
                yield f"{model} {runtime} {dtype}", {"skipped": str(reason)}
                continue
            yield from prove_and_time(machine, model, runtime, dtype)


def onnx(machine: Machine) -> Iterator[tuple[str, Any]]:
    """ONNX Runtime."""
    if find_spec("onnxruntime") is None:
        raise Skipped("no package onnxruntime")
    yield from each_graph(machine, "onnx")


def tensorrt(machine: Machine) -> Iterator[tuple[str, Any]]:
    """TensorRT, and what its plan of the published size is made of."""
    if not machine.on_gpu or find_spec("tensorrt") is None:
        raise Skipped("no GPU" if not machine.on_gpu else "no package tensorrt")
    yield from each_graph(machine, "tensorrt")
    yield "layers", tried(plan_layers, machine)


def plan_layers(machine: Machine) -> dict[str, Any]:
    """Count attention kernels: one per encoder layer and pass is what is hoped for."""
    with machine.engines("full_size", "tensorrt", machine.half, in_flight=1) as engines:
        plan = engines[0]._plan  # type: ignore[attr-defined]
        trt, engine = plan.trt, plan.engine
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers = json.loads(text)["Layers"]
    names = [layer if isinstance(layer, str) else layer.get("Name", "") for layer in layers]
    fused = [name for name in names if "mha" in name.lower()]
    return {"n_layers": len(names), "n_attention_kernels": len(fused), "names": [name[:160] for name in names[:400]]}
