"""Parts of the GPU kit: is every engine right, and how fast is it on batches of equal rows?"""

from __future__ import annotations

import json
import statistics
import threading
from typing import Any

from benchmarks.kit import per_s, random_batch, repeated
from benchmarks.speed.gpu.machine import WINDOW_TOKENS, Machine, tried
from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine
from wyr_batch.host import available_cpus
from wyr_batch.proof.batches import N_READS
from wyr_batch.proof.first_use import prove
from wyr_batch.tokens.kmers import PAD_ID


def parity(machine: Machine) -> dict[str, Any]:
    """Every runtime against float32 on the CPU, on the package's reads, with ragged rows, rows of N and all lengths."""
    found: dict[str, Any] = {}
    for model in machine.bundles:
        for runtime, dtype in machine.ways():
            name = f"{model} {runtime} {dtype}"

            def compare(model: str = model, runtime: str = runtime, dtype: str = dtype) -> dict[str, Any]:
                with machine.engines(model, runtime, dtype, in_flight=1) as engines:
                    return prove(engines[0], available_cpus(), 8 if machine.quick else N_READS).to_json()

            found[name] = tried(compare)
            if found[name].get("verdict") != "passed":
                machine.failed.add((model, runtime, dtype))
    return found


def sweep(machine: Machine) -> dict[str, Any]:
    """Reads/s, tokens/s and MFU over lengths and batch sizes, one and two batches in flight."""
    lengths = (32, 64) if machine.quick else (64, WINDOW_TOKENS, 512)
    budgets = (256,) if machine.quick else (8192, 32768, 49152, 65536)
    rows: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for model, runtime, dtype in ((m, r, d) for m in machine.bundles for r, d in machine.ways()):
        if (model, runtime, dtype) in machine.failed:
            problems[f"{model} {runtime} {dtype}"] = "not timed: it is not right, or could not be run"
            continue

        def measure(model: str = model, runtime: str = runtime, dtype: str = dtype) -> dict[str, Any]:
            with machine.engines(model, runtime, dtype) as engines:
                for n_tokens in lengths:
                    for budget in budgets:
                        for in_flight in range(1, len(engines) + 1):
                            row = one_rate(machine, engines[:in_flight], n_tokens, budget)
                            rows.append({"model": model, "runtime": runtime, "dtype": dtype, **row})
            return {}

        if "failed" in (outcome := tried(measure)):
            problems[f"{model} {runtime} {dtype}"] = outcome["failed"]
    for row in rows:
        if row["n_tokens"] == (64 if machine.quick else WINDOW_TOKENS):
            best = (row["reads_per_s"], row["runtime"], row["dtype"])
            machine.best[row["model"]] = max(best, machine.best.get(row["model"], (0.0, "", "")))
    return {"rows": rows, "problems": problems}


def one_rate(machine: Machine, engines: list[Engine], n_tokens: int, budget: int) -> dict[str, Any]:
    """Time batches of equal rows on all engines at once; median of three rounds.

    Args:
        n_tokens: of each row, `<cls>` counted.
        budget: padded tokens of a batch.
    """
    padded = -(-n_tokens // engines[0].pad_to) * engines[0].pad_to
    n_rows = max(1, budget // padded)
    ids, asked = random_batch(n_rows, padded, len(engines[0].bundle.ranks))
    ids[:, n_tokens:] = PAD_ID
    batches = 1 if machine.quick else 4

    def feed(engine: Engine) -> None:
        for _ in range(batches):
            engine.infer(ids, asked)

    def all_at_once() -> None:
        threads = [threading.Thread(target=feed, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    rates = per_s(n_rows * batches * len(engines), repeated(all_at_once, 3))
    reads_per_s = statistics.median(rates)
    return {
        "n_tokens": n_tokens,
        "padded_tokens": padded,
        "rows": n_rows,
        "in_flight": len(engines),
        "reads_per_s": reads_per_s,
        "tokens_per_s": reads_per_s * n_tokens,
        "mfu": machine.mfu(reads_per_s * flop_per_read(engines[0].bundle, n_tokens)),
    }


def flop_per_read(bundle: Bundle, n_tokens: int) -> float:
    """Return the arithmetic of both passes of the encoder over one read; the Explainer (some 1 %) is not counted."""
    path = bundle.folder / "checkpoint" / "explanandum" / "base_model" / "config.json"
    config = json.loads(path.read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    per_token = 2 * (4 * width**2 + 3 * width * inner) + 4 * width * n_tokens
    flop: float = 2 * config["num_hidden_layers"] * per_token * n_tokens
    return flop
