"""No GPU engine runs unproven: its first use with a bundle compares it with float32 on the CPU, and is remembered.

    256 reads, ragged batches of several lengths -> float32 on the CPU -> \\
                                                 -> the GPU engine     -> ProofRecord -> proofs/NAME-KEY.json

The exporter proves files; which kernels a GPU picks for them it cannot know. The same comparison is made here, once for
each bundle, runtime and its version, precision, GPU model and version of this package, with the same thresholds;
only float32 may differ by more on a GPU, which sums in another order. A failed proof is remembered as well. What passes
is timed on one full batch, so that `--runtime auto` can take the fastest.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch._version import __version__
from wyr_batch.bundle import PROOF_PASSED, Bundle
from wyr_batch.cache import keyed_path, write_file
from wyr_batch.checks.fields import Fields
from wyr_batch.engines.base import Engine
from wyr_batch.engines.cuda import Gpu
from wyr_batch.errors import MissingExtraError, ModelError, OutOfMemory
from wyr_batch.proof.batches import N_READS, token_arrays
from wyr_batch.proof.compare import FLOAT32, PROOF_FAILED, THRESHOLDS, ProofRecord, Thresholds, compare
from wyr_batch.ranks import rank_slices
from wyr_batch.tokens.open import open_tokenizer

logger = logging.getLogger(__name__)

TIMED_TOKENS, TIMED_RUNS = 256, 3
GPU_FLOAT32 = replace(FLOAT32, mask=1e-4, probs=1e-4, padding=1e-4)  # labels as on the CPU: all of them, but for ties


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof that was kept says; rows/s are 0 if it failed."""

    passed: bool
    failures: tuple[str, ...]
    rows_per_s: float


def proof_key(
    bundle: Bundle, runtime: str, version: str, dtype: str, gpu: Gpu, masked_calls: bool = True
) -> dict[str, Any]:
    """Return everything a proof depends on; an engine without masked calls has a proof of its own."""
    return {
        **({} if masked_calls else {"masked_calls": False}),
        "bundle_sha256": bundle.sha256,
        "runtime": runtime,
        "version": version,
        "dtype": dtype,
        "gpu": gpu.name,
        "compute_capability": ".".join(map(str, gpu.capability)),
        "wyr_batch": __version__,
    }


def proof_path(bundle: Bundle, key: Mapping[str, Any]) -> Path:
    """Return where the proof of that key lies, or would."""
    return keyed_path("proofs", f"{bundle.name}-{key['runtime']}-{key['dtype']}", key, ".json")


def read_proof(path: Path, key: Mapping[str, Any]) -> Proof | None:
    """Return the proof of that key, None if it is not there; a file of another shape is no proof."""
    try:
        found = Fields.read(path, ModelError)
        record = found.object("record")
        verdict = record.text("verdict", one_of=(PROOF_PASSED, PROOF_FAILED))
        proof = Proof(verdict == PROOF_PASSED, tuple(record.texts("failures")), found.number("rows_per_s", least=0))
    except ModelError:
        return None
    return proof if found.content.get("key") == key else None


def proven_rows_per_s(
    bundle: Bundle, runtime: str, version: str, dtype: str, gpu: Gpu, masked_calls: bool = True
) -> float | None:
    """Return the speed that a passed proof on this machine holds, None without one."""
    key = proof_key(bundle, runtime, version, dtype, gpu, masked_calls)
    proof = read_proof(proof_path(bundle, key), key)
    return proof.rows_per_s if proof and proof.passed else None


def ensure_proven(engine: Engine, version: str, gpu: Gpu, threads: int) -> None:
    """Prove an engine on its GPU, unless that has been done.

    Args:
        version: of the runtime.
        threads: for the float32 reference on the CPU.
    Raises: ModelError if it fails or has failed; MissingExtraError if nothing here computes the reference.
    """
    bundle = engine.bundle
    key = proof_key(bundle, engine.runtime, version, engine.dtype, gpu, engine.masked_calls)
    path = proof_path(bundle, key)
    proof = read_proof(path, key)
    if proof is None:
        logger.info("%s: first use with %s here: comparing it with float32 on the CPU", engine.describe(), bundle.name)
        record = prove(engine, threads)
        passed = record.verdict == PROOF_PASSED
        rows_per_s = round(time_rows(engine), 2) if passed else 0.0
        content = {"key": key, "record": record.to_json(), "rows_per_s": rows_per_s}
        write_file(path, (json.dumps(content, indent=2) + "\n").encode())
        proof = Proof(passed, record.failures, rows_per_s)
        if passed:
            labels = min([*record.label_agreement, *record.masked_label_agreement])
            logger.info(
                "%s: labels %.2f %%, mask mean %.2g off on %d reads, %.0f rows/s of %d tokens; kept in %s",
                *(engine.describe(), 100 * labels, record.mask_mean_abs_diff, record.n_reads, rows_per_s),
                *(min(TIMED_TOKENS, bundle.max_tokens), path),
            )
    if not proof.passed:
        raise ModelError(
            engine.describe(),
            "; ".join(proof.failures),
            "what float32 on the CPU gives",
            f"It is not used; take another --runtime or --dtype, or delete {path} to try again.",
        )


def prove(engine: Engine, threads: int, n_reads: int = N_READS) -> ProofRecord:
    """Compare an engine with float32 on the CPU on the package's reads, or the first so many of them.

    Raises: MissingExtraError, ModelError.
    """
    bundle = engine.bundle
    slices = rank_slices([len(rank.labels) for rank in bundle.ranks])
    with open_reference(bundle, threads) as reference:
        return compare(
            engine.infer,
            reference.infer,
            slices,
            bundle.max_tokens,
            thresholds=thresholds_of(engine),
            reads=proof_reads(bundle, n_reads),
            masked_calls=engine.masked_calls,
            vocabulary=bundle.vocabulary,
        )


def proof_reads(bundle: Bundle, n_reads: int = N_READS) -> list[npt.NDArray[Any]] | None:
    """Return the tokens of the package's reads for a bundle; None, for random tokens, if it takes no nucleotides."""
    return token_arrays(tokenizer=open_tokenizer(bundle))[:n_reads] if bundle.input == "reads" else None


def thresholds_of(engine: Engine) -> Thresholds:
    """Return how far an engine may be from float32 on the CPU."""
    on_gpu = engine.device.startswith("cuda")
    return GPU_FLOAT32 if on_gpu and engine.dtype == "float32" else THRESHOLDS[engine.dtype]


def open_reference(bundle: Bundle, threads: int) -> Engine:
    """Return float32 on the CPU: ONNX Runtime if it is there, else torch. Raises: MissingExtraError, ModelError."""
    if find_spec("onnxruntime") is not None and bundle.holds("onnx", "float32"):
        from wyr_batch.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, "float32", threads)
    if find_spec("torch") is None:
        raise MissingExtraError("the float32 reference on the CPU", "onnxruntime", "cpu")
    from wyr_batch.engines.torch import LoadedModel, TorchEngine

    return TorchEngine(bundle, "float32", LoadedModel(bundle, "float32", "cpu", threads))


def time_rows(engine: Engine) -> float:
    """Return rows/s over one full batch of random tokens, or as much of it as memory holds, one batch in flight."""
    n_tokens = min(TIMED_TOKENS, engine.bundle.max_tokens)
    n_rows = max(1, engine.default_batch_tokens // n_tokens)
    while True:
        try:
            return n_rows / _seconds(engine, n_rows, n_tokens)
        except OutOfMemory:
            if n_rows == 1:
                raise
            n_rows //= 2


def _seconds(engine: Engine, n_rows: int, n_tokens: int) -> float:
    ids = engine.bundle.vocabulary.random_batch(n_rows, n_tokens)
    asked = np.full((n_rows, len(engine.bundle.ranks)), -1, np.int32)
    seconds = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        engine.infer(ids, asked)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
