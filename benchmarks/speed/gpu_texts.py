"""Texts on a GPU: the Explainer in bulk, and methods that take a text at a time, on the same device.

    python -m benchmarks.speed.gpu_texts -o benchmarks/results/gpu_texts.json             # on the GPU machine
    python -m benchmarks.speed.gpu_texts --device cpu --quick -o /tmp/dry_run.json        # the dry run, anywhere

A BERT of MiniLM's shape (6 layers of width 384) and a readout Explainer of the default size, both with random weights,
on made-up texts as long as snippets of film reviews: what is measured is speed. Needs a checkout and torch,
transformers, tokenizers, numpy, pyarrow, click; and captum and scikit-learn for two of the rivals, which are left out
without them.

- ours: `wyr_batch.run` from a text file to Parquet, after the engine has been opened: texts are read, tokenised and
  laid out, the plain and the masked pass are computed. Also the engine alone, on batches that are ready.
- rivals: those of benchmarks/quality/text_methods.py, a text at a time, all its samples in one batch, its text
  tokenised as well. transformers' own model computes, in the precision of the row.

Ours is compared with float32 on the CPU before it is timed. Random weights make all calls but ties, so both are asked
for the same classes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

import wyr_batch
from benchmarks import kit
from benchmarks.speed.gpu.facts import facts
from benchmarks.speed.gpu.machine import Machine, Skipped, need_torch, tried
from benchmarks.speed.made_texts import made_texts, make_bundle
from benchmarks.tables import Json, correct, markdown, shown
from wyr_batch.engines.base import Engine, Started
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats

CHUNK_TEXTS = 8192  # as a run reads them
NEEDS = {"integrated_gradients": ("captum",), "kernel_shap": ("captum", "sklearn")}
RIVALS = ("kernel_shap", "lime", "integrated_gradients", "leave_one_out", "attn_lrp")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        texts: ours; rival_texts: of a rival, a round; compared: of the comparison with float32 on the CPU.
        samples: of KernelSHAP and LIME; steps: of integrated gradients.
        budgets: padded tokens of a batch.
    """

    texts: int = 32768
    rival_texts: int = 16
    compared: int = 64
    samples: int = 200
    steps: int = 50
    rounds: int = 3
    budgets: tuple[int, ...] = (8192, 32768, 98304)
    layers: int = 6
    width: int = 384
    heads: int = 12
    inner: int = 1536


QUICK = Sizes(64, 2, 8, 8, 4, 2, (512,), layers=2, width=32, heads=4, inner=48)


# Ours


def ready_batches(engine: Engine, texts: list[str], budget_tokens: int) -> list[Any]:
    """Return input_ids int32 [B, T] of the batches that a run makes of texts."""
    from wyr_batch.explain.retry import BatchRunner
    from wyr_batch.reads.chunk import ReadChunk
    from wyr_batch.tokens.batches import pad_batch
    from wyr_batch.tokens.open import open_tokenizer
    from wyr_batch.tokens.plan import Planner

    bundle, runner = engine.bundle, BatchRunner(engine)
    planner = Planner(
        bundle.window_tokens,
        0,
        budget_tokens,
        pad_to=engine.pad_to,
        tokenizer=open_tokenizer(bundle),
        vocabulary=bundle.vocabulary,
    )
    batches = []
    for start in range(0, len(texts), CHUNK_TEXTS):
        work = planner.plan(ReadChunk.from_texts(texts[start : start + CHUNK_TEXTS]))
        for rows in work.batches:
            n_padded = runner.n_padded(work, rows)
            batches.append(pad_batch(work.tokens.ids, work.windows, rows, n_padded, bundle.vocabulary))
    return batches


def run_all(engine: Engine, batches: list[Any]) -> None:
    """Run batches, as many under way as the engine has room for."""
    under_way: deque[Started] = deque()
    for ids in batches:
        under_way.append(engine.start(ids, np.full((len(ids), 1), -1, np.int32)))
        if len(under_way) == engine.in_flight:
            engine.finish(under_way.popleft())
    while under_way:
        engine.finish(under_way.popleft())


def compared(machine: Machine, engine: Engine, texts: list[str]) -> Json:
    """Return how far an engine is from float32 on the CPU, and whether its proof would let that pass."""
    from wyr_batch.choose import EngineRequest, open_engine
    from wyr_batch.host import available_cpus
    from wyr_batch.proof.first_use import thresholds_of

    limits = thresholds_of(engine)
    found: dict[str, float] = {"mask": 0.0, "probs": 0.0, "mask_mean": 0.0}
    request = EngineRequest("cpu", "torch", "float32", available_cpus())
    with open_engine(machine.bundle("texts"), request) as reference:
        for ids in ready_batches(engine, texts, 2048):
            asked = (np.arange(len(ids), dtype=np.int32) % 2)[:, None]
            ours, theirs = engine.infer(ids, asked), reference.infer(ids, asked)
            gap = np.abs(ours.mask - theirs.mask)[ids != engine.bundle.vocabulary.pad_id]
            found["mask"] = max(found["mask"], float(gap.max()))
            found["mask_mean"] = max(found["mask_mean"], float(gap.mean()))
            for a, b in ((ours.probs, theirs.probs), (ours.masked_probs, theirs.masked_probs)):
                found["probs"] = max(found["probs"], float(np.abs(a - b).max()))
    within = all(value <= getattr(limits, name) for name, value in found.items())
    return {"texts": len(texts), "max_abs_diff": found, "within_limits_of_the_proof": within}


def are_rows_right(output: Path, n_texts: int) -> bool:
    """Say whether a run has explained every text, with one mask value a token."""
    table = pq.read_table(output, columns=["status", "n_tokens", "mask"])
    same_tokens = pc.all(pc.equal(pc.list_value_length(table["mask"]), table["n_tokens"])).as_py()
    return table.num_rows == n_texts and bool(same_tokens) and pc.unique(table["status"]).to_pylist() == ["ok"]


def ours(machine: Machine, sizes: Sizes, texts: list[str], dtype: str) -> Json:
    """Time the engine on ready batches, then whole runs with the budget that was fastest."""
    source, output = machine.folder / "texts.txt", machine.folder / "masks.parquet"
    with machine.engines("texts", "torch", dtype) as engines:
        (engine,) = engines
        agrees = compared(machine, engine, texts[: sizes.compared])
        alone = {}
        for budget in sizes.budgets:
            batches = ready_batches(engine, texts, budget)
            timings = kit.repeated(partial(run_all, engine, batches), sizes.rounds)
            padded = sum(ids.size for ids in batches)
            alone[budget] = {"batches": len(batches), "padded_tokens": padded, **seconds_a_text(timings, len(texts))}
        best = min(alone, key=lambda budget: float(alone[budget]["seconds_per_text"]["median"]))
        config = RunConfig((str(source),), output, overwrite=True, max_batch_tokens=best)
        done: list[RunStats] = []
        timings = kit.repeated(lambda: done.append(wyr_batch.run(config, engines=engines)), sizes.rounds)
    return {
        "method": "explainer",
        "dtype": dtype,
        "correct": agrees["within_limits_of_the_proof"] and are_rows_right(output, len(texts)),
        "texts": len(texts),
        "compared": agrees,
        **seconds_a_text(timings, len(texts)),
        "max_batch_tokens": best,
        "engine_alone": alone,
        "summary": done[-1].as_json(),
    }


def seconds_a_text(timings: list[kit.Timing], n_texts: int) -> Json:
    """Return seconds a text of each round, and their spread."""
    rounds = [timing.wall_s / n_texts for timing in timings]
    return {"seconds_per_text": kit.spread(rounds), "rounds": rounds}


# Rivals


def rivals(machine: Machine, sizes: Sizes, texts: list[str], dtype: str) -> Iterator[tuple[str, Callable[[], Json]]]:
    """Yield each rival's name and what times it."""
    torch = need_torch()
    from benchmarks.quality.text_measures import Classifier
    from benchmarks.quality.text_methods import Rivals
    from wyr_batch.models.families.quiet import quiet_transformers

    folder = machine.folder / "texts" / "checkpoint" / "explanandum"
    with quiet_transformers():
        classifier = Classifier(folder, machine.device, getattr(torch, dtype), sizes.samples)
    methods = Rivals(classifier, sizes.samples, sizes.steps, seed=0)
    classes = [i % 2 for i in range(len(texts))]
    lengths = [len(classifier.read(text)) for text in texts]

    def time_one(name: str) -> Json:
        for package in NEEDS.get(name, ()):
            if find_spec(package) is None:
                raise Skipped(f"no package {package}")
        if name in NEEDS:
            import_captum()
        scorer = methods.scorer(name)
        scores = scorer(texts, classes)  # which warms up
        right = [len(given) for given in scores] == lengths and all(np.isfinite(given).all() for given in scores)
        timings = kit.repeated(lambda: scorer(texts, classes), sizes.rounds, warm_up=False)
        return {"correct": bool(right), "texts": len(texts), **seconds_a_text(timings, len(texts))}

    for name in RIVALS:
        yield name, partial(time_one, name)


class _Nothing(type):
    """The type of classes that have whatever method they are asked for, which does nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


class _Absent(ModuleType):
    """A module of a package that is not there: whatever it is asked for is a class of that name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or _Nothing(name, (), {})


def import_captum() -> None:
    """Import captum, where matplotlib is not installed with stand-ins for it: nothing here asks for a picture.

    Raises: Skipped without captum.
    """
    parts = ("", ".axes", ".collections", ".colors", ".figure", ".image", ".pyplot")
    names = (*(f"matplotlib{part}" for part in parts), "mpl_toolkits", "mpl_toolkits.axes_grid1")
    absent = {name: _Absent(name) for name in names if find_spec("matplotlib") is None}
    sys.modules.update(absent)
    try:
        import captum.attr  # noqa: F401
    except ModuleNotFoundError as error:
        raise Skipped(f"no package {error.name}") from None
    finally:
        for name in absent:  # other packages ask whether it is there
            del sys.modules[name]


def measure(machine: Machine, sizes: Sizes, keep: Callable[[Json], None]) -> None:
    """Measure everything; `keep` takes what is to be written whenever there is more of it."""
    texts = made_texts(sizes.texts, seed=0)
    (machine.folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    make_bundle(machine.folder / "texts", sizes.layers, sizes.width, sizes.heads, sizes.inner)
    rows: list[Json] = []
    result: Json = {"machine": dict(facts(machine)), "sizes": asdict(sizes), "rows": rows}
    for dtype in dict.fromkeys((machine.half, "float32")):
        rows.append(
            {"method": "explainer", "dtype": dtype, "correct": False} | tried(ours, machine, sizes, texts, dtype)
        )
        result["mean_tokens"] = result.get("mean_tokens") or rows[-1].get("summary", {}).get("tokens", 0) / len(texts)
        keep(result)
        own = rows[-1].get("rounds")
        for name, time_one in rivals(machine, sizes, texts[: sizes.rival_texts], dtype):
            found = {"method": name, "dtype": dtype, "correct": False} | tried(time_one)
            if own and "rounds" in found:
                found["times_ours"] = kit.spread(kit.ratios(found["rounds"], own))
            rows.append(found)
            keep(result)


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for the dry run")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything work?")
    args = parser.parse_args()
    wyr_batch.__path__.append(str(kit.ROOT))  # wyr_batch.export, where the checkout is not installed
    warnings.filterwarnings("ignore")  # of captum: it warns for every text
    device = "cuda:0" if args.device == "cuda" else args.device

    def keep(result: Json) -> None:
        kit.write_result(args.output, "gpu_texts", {"asked_device": device, "quick": args.quick, **result})
        print(described(result["rows"][-1]), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["WYR_CACHE"] = f"{folder}/cache"
        measure(Machine(device, args.quick, Path(folder)), QUICK if args.quick else Sizes(), keep)


def described(row: Json) -> str:
    """Return a row in a line."""
    name = f"{row['method']} {row['dtype']}"
    if why := next((f"{word}: {row[word]}" for word in ("skipped", "failed") if word in row), None):
        return f"{name}: {why}"
    times = f", {shown(row['times_ours'])} times ours" if "times_ours" in row else ""
    return f"{name}: {1e3 * row['seconds_per_text']['median']:.4g} ms a text{times}"


def table(data: Json) -> str:
    measured = [row for row in data["rows"] if "seconds_per_text" in row]
    rows, note = correct(measured)
    head = ["method", "precision", "ms a text", "times ours"]
    lines = [
        [
            row["method"].replace("_", " "),
            row["dtype"],
            shown({name: 1e3 * value for name, value in row["seconds_per_text"].items()}, ".3g"),
            shown(row["times_ours"]) if "times_ours" in row else "",
        ]
        for row in rows
    ]
    device = data["machine"].get("device", {}).get("name", data["asked_device"])
    sizes = data["sizes"]
    about = (
        f"{device}. A BERT of {sizes['layers']} layers of width {sizes['width']} with random weights; texts of "
        f"{data['mean_tokens']:.0f} tokens on average. The Explainer: {sizes['texts']:,} texts from a file to Parquet, "
        f"with the engine opened before. The others: {sizes['rival_texts']} texts, one at a time; {sizes['samples']} "
        f"samples (KernelSHAP, LIME), {sizes['steps']} steps (integrated gradients). `times ours` compares with the "
        "Explainer in the same precision."
    )
    return f"{about}\n\n{markdown(head, lines)}{note}"


if __name__ == "__main__":
    main()
