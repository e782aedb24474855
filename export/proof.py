"""Every way to compute a bundle, compared with float32 torch: files in ONNX Runtime, and the other runtimes.

    model.onnx        ONNX Runtime float32           \\
    model.fp16.onnx   ONNX Runtime float16            |-> compare -> parity.json "files"
    model.onnx        OpenVINO float32, bfloat16      |-> compare -> parity.json "runtimes"
    checkpoint/       torch float16, bfloat16        /

Each is also timed on one batch, so that `--runtime auto` can tell which is faster on a machine like this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wyr_batch.choose import RUNTIMES
from wyr_batch.host import available_cpus
from wyr_batch.models.fused import Fused
from wyr_batch.models.precision import in_precision
from wyr_batch.proof.compare import THRESHOLDS, Candidate, Int32s, ProofRecord, Remembered, compare
from wyr_batch.tokens.kmers import CLS_ID, FIRST_BASE_ID, FIRST_KMER_ID

from .onnx_file import runner_from_onnx

FILES = {"float32": "model.onnx", "float16": "model.fp16.onnx"}
TIMED_ROWS, TIMED_TOKENS, TIMED_RUNS = 16, 251, 3


def candidates(
    folder: Path, reference: Fused, dtypes: Sequence[str], threads: int | None
) -> Iterator[tuple[str, str, str, Candidate]]:
    """Yield (where in parity.json, name, dtype, candidate) for every way that can be proven here.

    OpenVINO is proven where it is installed, torch always; each in those of the dtypes that it computes in.
    """
    for dtype in dtypes:
        if dtype in FILES:
            yield "files", FILES[dtype], dtype, runner_from_onnx(folder / FILES[dtype], threads)
    if find_spec("openvino") is not None:
        from wyr_batch.engines.openvino import OpenVinoGraph

        for dtype in dtypes:
            if dtype in RUNTIMES["openvino"]:
                graph = OpenVinoGraph(folder / FILES["float32"], dtype, threads or available_cpus())
                yield "runtimes", f"openvino {dtype}", dtype, graph.run
    for dtype in dtypes:
        if dtype != "float32":
            yield "runtimes", f"torch {dtype}", dtype, torch_runner(in_precision(reference, dtype))


def prove(
    folder: Path,
    reference: Fused,
    max_tokens: int,
    dtypes: Sequence[str],
    reads: Sequence[npt.ArrayLike] | None,
    threads: int | None,
    progress: Callable[[str], None],
) -> tuple[dict[str, dict[str, ProofRecord]], dict[str, float]]:
    """Compare and time every way.

    Returns: records by place ('files', 'runtimes') and name, and rows/s of one batch by runtime and precision.
    """
    records: dict[str, dict[str, ProofRecord]] = {"files": {}, "runtimes": {}}
    speeds: dict[str, float] = {}
    remembered: Remembered = {}
    for place, name, dtype, candidate in candidates(folder, reference, dtypes, threads):
        progress(f"comparing {name} with float32 torch")
        records[place][name] = compare(
            candidate,
            torch_runner(reference),
            reference.explanandum.slices,
            max_tokens,
            thresholds=THRESHOLDS[dtype],
            reads=reads,
            remembered=remembered,
        )
        speeds[f"onnx {dtype}" if place == "files" else name] = _rows_per_s(candidate, reference, max_tokens)
    speeds["torch float32"] = _rows_per_s(torch_runner(reference), reference, max_tokens)
    return records, speeds


def _rows_per_s(candidate: Candidate, reference: Fused, max_tokens: int) -> float:
    """Return the speed of the fastest of a few runs over one batch of random 6-mers; 0 if it cannot run it."""
    shape = (TIMED_ROWS, min(TIMED_TOKENS, max_tokens))
    ids = np.random.default_rng(0).integers(FIRST_KMER_ID, FIRST_BASE_ID, shape).astype(np.int32)
    ids[:, 0] = CLS_ID
    asked = np.full((TIMED_ROWS, len(reference.explanandum.slices)), -1, np.int32)
    seconds = []
    try:
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            candidate(ids, asked)
            seconds.append(time.perf_counter() - start)
    except Exception:  # the comparison has already said what is wrong
        return 0.0
    return round(TIMED_ROWS / min(seconds), 2)


def torch_runner(module: Fused) -> Candidate:
    """Return the module as a function of int32 arrays; where it lies, it runs."""

    def run(ids: Int32s, asked: Int32s) -> tuple[npt.NDArray[Any], ...]:
        device = module.first_class.device
        with torch.inference_mode():
            out = module(torch.from_numpy(ids).to(device), torch.from_numpy(asked).to(device))
        return tuple(tensor.cpu().numpy() for tensor in out)

    return run
