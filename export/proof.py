"""Every way to compute a bundle, compared with float32 torch: files in ONNX Runtime, and the other runtimes.

    model.onnx        ONNX Runtime float32           \\
    model.fp16.onnx   ONNX Runtime float16            |-> compare -> parity.json "files"
    model.onnx        OpenVINO float32, bfloat16      |-> compare -> parity.json "runtimes"
    checkpoint/       torch float16, bfloat16        /
    each of them without the second pass             -> compare -> parity.json "without_masked_calls"

Each is also timed on one batch, so that `--runtime auto` can tell which is faster on a machine like this one. What runs
without the second pass is a part of what has just been proven; so it is compared on fewer batches, and is not timed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wyr_batch.choose import RUNTIMES
from wyr_batch.host import available_cpus
from wyr_batch.job.progress import Bar
from wyr_batch.models.fused import Fused
from wyr_batch.models.precision import in_precision
from wyr_batch.proof.compare import THRESHOLDS, Candidate, Int32s, ProofRecord, Remembered, compare

from .onnx_file import runner_from_onnx

FILES = {"float32": "model.onnx", "float16": "model.fp16.onnx"}
TIMED_ROWS, TIMED_TOKENS, TIMED_RUNS, TIMED_S = 16, 251, 3, 3.0
READS_S = 10.0  # for the reads of each way, once a batch of every length and size has been compared
FEW_ROWS = 4  # of the timed batch, where a row takes long
WITHOUT_MASKED_CALLS, WITHOUT_ROWS, WITHOUT_SHARE = "without_masked_calls", 3, 0.25


def candidates(
    folder: Path, reference: Fused, dtypes: Sequence[str], threads: int | None
) -> Iterator[tuple[str, str, str, Candidate]]:
    """Yield (where in parity.json, name, dtype, candidate) for every way that can be proven here.

    OpenVINO is proven where it is installed, torch always; each in those of the dtypes that it computes in, and then
    without the second pass.
    """
    for dtype in dtypes:
        if path := FILES.get(dtype):
            yield "files", path, dtype, runner_from_onnx(folder / path, threads)
            yield WITHOUT_MASKED_CALLS, f"onnx {dtype}", dtype, runner_from_onnx(folder / path, threads, False)
    if find_spec("openvino") is not None:
        from wyr_batch.engines.openvino import OpenVinoGraph

        for dtype in dtypes:
            if dtype in RUNTIMES["openvino"]:
                for place in ("runtimes", WITHOUT_MASKED_CALLS):
                    settings = (dtype, threads or available_cpus(), place == "runtimes")
                    yield place, f"openvino {dtype}", dtype, OpenVinoGraph(folder / FILES["float32"], *settings).run
    for dtype in dtypes:
        if dtype != "float32":
            module = in_precision(reference, dtype)
            yield "runtimes", f"torch {dtype}", dtype, torch_runner(module)
            yield WITHOUT_MASKED_CALLS, f"torch {dtype}", dtype, torch_runner(module, False)


def prove(
    folder: Path,
    reference: Fused,
    max_tokens: int,
    dtypes: Sequence[str],
    reads: Sequence[npt.ArrayLike] | None,
    threads: int | None,
    progress: Callable[[str], None],
    *,
    reads_s: float = math.inf,
    show_bar: bool = False,
) -> tuple[dict[str, dict[str, ProofRecord]], dict[str, float]]:
    """Compare and time every way.

    Args:
        progress: called with a line for each way.
        reads_s: seconds that each way may take for the reads, as of `compare`.
        show_bar: show how far each way is, see `Bar`.
    Returns: records by place ('files', 'runtimes', 'without_masked_calls') and name, and rows/s of one batch by runtime
        and precision.
    """
    records: dict[str, dict[str, ProofRecord]] = {"files": {}, "runtimes": {}, WITHOUT_MASKED_CALLS: {}}
    speeds: dict[str, float] = {}
    remembered: Remembered = {}
    for place, name, dtype, candidate in candidates(folder, reference, dtypes, threads):
        masked_calls = place != WITHOUT_MASKED_CALLS
        shown = name if masked_calls else f"{name} without masked calls"
        progress(f"comparing {shown} with float32 torch")
        with Bar(show_bar) as bar:
            records[place][name] = compare(
                candidate,
                torch_runner(reference),
                reference.explanandum.slices,
                max_tokens,
                thresholds=THRESHOLDS[dtype],
                reads=reads,
                remembered=remembered,
                masked_calls=masked_calls,
                only_size=None if masked_calls else WITHOUT_ROWS,
                reads_s=reads_s if masked_calls else min(reads_s, READS_S) * WITHOUT_SHARE,
                show=partial(_show, bar, shown),
                vocabulary=reference.explanandum.vocabulary,
            )
        if masked_calls:
            speeds[f"onnx {dtype}" if place == "files" else name] = _rows_per_s(candidate, reference, max_tokens)
    speeds["torch float32"] = _rows_per_s(torch_runner(reference), reference, max_tokens)
    return records, speeds


def _show(bar: Bar, text: str, share: float) -> None:
    bar.show(share, text)


def _rows_per_s(candidate: Candidate, reference: Fused, max_tokens: int) -> float:
    """Return the speed of the fastest of a few runs over one batch of random tokens, of one if that takes long.

    The batch has fewer rows where all of them would take far longer than `TIMED_S`.

    Returns: rows/s; 0 if it cannot run it.
    """
    ids = reference.explanandum.vocabulary.random_batch(TIMED_ROWS, min(TIMED_TOKENS, max_tokens))
    asked = np.full((TIMED_ROWS, len(reference.explanandum.slices)), -1, np.int32)

    def seconds_of(n_rows: int) -> float:
        start = time.perf_counter()
        candidate(ids[:n_rows], asked[:n_rows])
        return time.perf_counter() - start

    try:
        n_rows = TIMED_ROWS if seconds_of(1) * TIMED_ROWS < TIMED_S else FEW_ROWS
        seconds = [seconds_of(n_rows)]
        while len(seconds) < TIMED_RUNS and sum(seconds) < TIMED_S:
            seconds.append(seconds_of(n_rows))
    except Exception:  # the comparison has already said what is wrong
        return 0.0
    return round(n_rows / min(seconds), 2)


def torch_runner(module: Fused, masked_calls: bool = True) -> Candidate:
    """Return the module as a function of int32 arrays; where it lies, it runs."""

    def run(ids: Int32s, asked: Int32s) -> tuple[npt.NDArray[Any], ...]:
        device = module.first_class.device
        with torch.inference_mode():
            out = module(
                torch.from_numpy(ids).to(device), torch.from_numpy(asked).to(device), masked_calls=masked_calls
            )
        return tuple(tensor.cpu().numpy() for tensor in out)

    return run
