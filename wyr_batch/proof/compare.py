"""The proof: does a way to compute a bundle give what float32 gives? Measured, judged, and written down.

    batches of several lengths and sizes -> reference -> \\
                                         -> candidate -> differences, label agreement -> ProofRecord
    some rows of each batch, alone       -> candidate -> /

Lengths and batch sizes are others than the one traced, rows are ragged, one row of a batch is all N, and every length
is run once more with the explained classes asked for by number. A candidate that raises has failed: a dimension
frozen at export shows in that way. The exporter proves files with it, and first_use.py an engine on a GPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.bundle import PROOF_PASSED
from wyr_batch.engines.signature import OUTPUTS, EngineOutput
from wyr_batch.reads.open import open_reads
from wyr_batch.tokens.kmers import CLS_ID, FIRST_BASE_ID, FIRST_KMER_ID, N_ID, PAD_ID, UNKNOWN_ID, tokenise

PROOF_FAILED = "failed"
LENGTHS = (7, 65, 200)  # and the longest that the file takes
BATCH_SIZES = (1, 3, 16)
MAX_BATCH_TOKENS = 4096  # a longer batch gets fewer rows: attention holds rows * heads * T^2 numbers
N_READS = 256
READS = Path(__file__).with_name("reads.fastq.gz")  # the first reads of examples/reads.fastq.gz
N_ALONE = 3  # rows of a batch that are run alone as well
LIMITS = {"mask": "mask", "rank_masks": "mask", "probs": "probs", "masked_probs": "probs", "padding": "padding"}

Int32s = npt.NDArray[np.int32]
Array = npt.NDArray[Any]
Outputs = Mapping[str, Array] | Sequence[Array]
Remembered = dict[tuple[bytes, bytes, tuple[int, ...]], EngineOutput]  # by input_ids, explain_ids and their shape
Candidate = Callable[[Int32s, Int32s], Outputs]  # (input_ids [B, T], explain_ids [B, R]) -> the five outputs


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How far a file of one precision may be from float32 torch.

    Attributes:
        mask: largest absolute difference of `mask` and `rank_masks` where the explained classes agree.
        probs: the same of `probs` and `masked_probs`.
        padding: largest absolute difference of a row run alone and in a padded batch, in any output.
        tie: a label may differ where the reference's two best probabilities are no further apart than this.
        agreement: least share of labels that agree, ties counted as agreeing, in each rank, plain and masked.
        mask_mean: largest mean absolute difference of `mask` over tokens where the explained classes agree.
    """

    dtype: str
    mask: float
    probs: float
    padding: float
    tie: float
    agreement: float
    mask_mean: float


FLOAT32 = Thresholds("float32", mask=1e-5, probs=1e-5, padding=1e-5, tie=1e-5, agreement=1.0, mask_mean=1e-5)
# A single mask value may be anything in half precision: where a forget gate stands on an edge, so does the mask.
FLOAT16 = Thresholds("float16", mask=1.0, probs=0.1, padding=1.0, tie=0.0, agreement=0.995, mask_mean=0.01)
BFLOAT16 = replace(FLOAT16, dtype="bfloat16", probs=0.25)
THRESHOLDS = {limits.dtype: limits for limits in (FLOAT32, FLOAT16, BFLOAT16)}


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """What was compared and how far off it was; n_reads counts rows, each run; lists per rank are in rank order."""

    verdict: str
    failures: tuple[str, ...]
    n_reads: int
    n_tokens: int
    lengths: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    label_agreement: tuple[float, ...]
    masked_label_agreement: tuple[float, ...]
    max_abs_diff: Mapping[str, float]  # mask, rank_masks, probs, masked_probs; padding: a row alone or in a batch
    mask_mean_abs_diff: float
    all_finite: bool
    tolerance_needed: float  # the smallest one for all differences that would have passed
    thresholds: Thresholds
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the record for parity.json; what is infinite or not a number becomes null."""
        return dict(json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None))


def compare(
    candidate: Candidate,
    reference: Candidate,
    slices: Sequence[slice],
    max_tokens: int,
    *,
    thresholds: Thresholds = FLOAT32,
    reads: Sequence[npt.ArrayLike] | None = None,
    lengths: Sequence[int] = LENGTHS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    remembered: Remembered | None = None,
) -> ProofRecord:
    """Compare a candidate with the float32 reference and judge it.

    Args:
        candidate: takes int32 arrays input_ids [B, T] and explain_ids [B, R], returns the five outputs by name, or
            in the order of `EngineOutput`.
        reference: the same in float32.
        slices: the classes of each rank among all C.
        max_tokens: the longest row the candidate takes, `<cls>` counted; always among the lengths.
        reads: token ids of real reads without `<cls>`; the batches are cut from them, and each is run once besides,
            the first max_tokens - 1 tokens of it. None: seeded random tokens.
        batch_sizes: rows; a batch of more than `MAX_BATCH_TOKENS` gets fewer.
        remembered: the reference's outputs, kept for the next candidate that is compared on the same reads.
    """
    tally = _Tally(candidate, reference, slices, thresholds, {} if remembered is None else remembered)
    rng = np.random.default_rng(0)
    source = _tokens(rng, reads)
    for length in sorted({length for length in lengths if length < max_tokens} | {max_tokens}):
        sizes = sorted({min(size, max(1, MAX_BATCH_TOKENS // length)) for size in batch_sizes})
        for n_rows in sizes:
            batch = _ragged_batch(source, rng, n_rows, length)
            tally.add_alone(batch, tally.add(batch))
        tally.add(batch, other_classes=True)
    rows = [np.asarray(read)[: max_tokens - 1] for read in reads or ()]
    n_rows = max(1, min(max(batch_sizes), MAX_BATCH_TOKENS // (1 + max(map(len, rows), default=0))))
    for start in range(0, len(rows), n_rows):
        tally.add(_padded(rows[start : start + n_rows]))
    return tally.record()


def _tokens(rng: np.random.Generator, reads: Sequence[npt.ArrayLike] | None) -> Iterator[Int32s]:
    """Yield pieces of tokens without end: the reads over and over, or random ones ending in letters."""
    while True:
        if reads is not None and any(np.size(read) > 0 for read in reads):
            yield from (np.asarray(read, np.int32) for read in reads)
        else:
            body = rng.integers(FIRST_KMER_ID, FIRST_BASE_ID, size=40)
            tail = rng.choice([UNKNOWN_ID, *range(FIRST_BASE_ID, N_ID + 1)], size=5)
            yield np.concatenate((body, tail)).astype(np.int32)


def _ragged_batch(source: Iterator[Int32s], rng: np.random.Generator, n_rows: int, length: int) -> Int32s:
    """Return input_ids int32 [n_rows, length]: row 0 full, the others ragged, row 1 all N."""
    rows = []
    for row in range(n_rows):
        n_tokens = length - 1 if row == 0 else int(rng.integers(0, length))
        tokens = np.full(n_tokens, N_ID, np.int32) if row == 1 else np.empty(0, np.int32)
        while len(tokens) < n_tokens:
            tokens = np.concatenate((tokens, next(source)))
        rows.append(tokens[:n_tokens])
    return _padded(rows)


def _padded(rows: Sequence[Array]) -> Int32s:
    """Return input_ids int32 [B, T] of token rows, `<cls>` set before each."""
    batch = np.full((len(rows), 1 + max(map(len, rows))), PAD_ID, np.int32)
    batch[:, 0] = CLS_ID
    for row, tokens in zip(batch, rows, strict=True):
        row[1 : 1 + len(tokens)] = tokens
    return batch


def token_arrays(path: Path = READS) -> list[Array]:
    """Return the token ids of a file's first reads, one int16 array each; empty reads are left out."""
    with open_reads(path, chunk_reads=N_READS) as reads:
        for chunk in islice(reads, 1):
            tokens = tokenise(chunk.bases, chunk.offsets)
            return [tokens.ids[start:end] for start, end in pairwise(tokens.offsets.tolist()) if end > start]
    return []


def _by_name(outputs: Outputs) -> EngineOutput:
    """Return a copy of outputs that come by name or in order."""
    named = outputs if isinstance(outputs, Mapping) else dict(zip(OUTPUTS, outputs, strict=True))
    return EngineOutput(*(np.array(named[name]) for name in OUTPUTS))


def _difference(a: Array, b: Array) -> float:
    """Return the largest absolute difference, infinite if anything is not a number, 0 of nothing."""
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf).max(initial=0.0))


def _name(batch: Int32s) -> str:
    return f"batch of {batch.shape[0]} x {batch.shape[1]} tokens"


@dataclass
class _Tally:
    """Adds up differences over batches."""

    candidate: Candidate
    reference: Candidate
    slices: Sequence[slice]
    thresholds: Thresholds
    remembered: Remembered = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    n_tokens: int = 0
    all_finite: bool = True
    worst: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0.0))
    mask_sum: float = 0.0
    n_mask: int = 0

    def __post_init__(self) -> None:
        # Per rank: labels compared, equal, and equal or tied; first plain, then masked.
        self.labels = np.zeros((2, 3, len(self.slices)), np.int64)

    def add(self, batch: Int32s, other_classes: bool = False) -> EngineOutput | None:
        """Compare one batch, explaining the predicted classes or others; return the candidate's outputs or None."""
        asked = np.full((len(batch), len(self.slices)), -1, np.int32)
        wanted = self._wanted(batch, asked)
        if other_classes:
            asked = (wanted.explained_ids + 1) % np.array([s.stop - s.start for s in self.slices], np.int32)
            wanted = self._wanted(batch, asked)
        self.shapes.append(batch.shape)
        self.n_tokens += int((batch != PAD_ID).sum())
        found = self._run(batch, asked, wanted)
        if found is not None:
            self._compare(batch, wanted, found)
        return found

    def add_alone(self, batch: Int32s, padded: EngineOutput | None) -> None:
        """Run some rows of a batch alone, without padding, and compare them with the same rows in the batch."""
        if padded is None or len(batch) == 1:
            return
        for row in range(min(N_ALONE, len(batch))):
            n = int((batch[row] != PAD_ID).sum())
            explained = np.ascontiguousarray(padded.explained_ids[row : row + 1])
            cut = EngineOutput._make(values[row : row + 1] for values in padded)
            cut = cut._replace(mask=cut.mask[:, :n], rank_masks=cut.rank_masks[..., :n])
            alone = self._run(np.ascontiguousarray(batch[row : row + 1, :n]), explained, cut)
            if alone is not None:
                for values, in_batch in zip(alone, cut, strict=True):
                    self._worst("padding", values, in_batch)

    def _wanted(self, batch: Int32s, asked: Int32s) -> EngineOutput:
        """Return the reference's outputs."""
        key = batch.tobytes(), asked.tobytes(), batch.shape
        if key not in self.remembered:
            self.remembered[key] = _by_name(self.reference(batch, asked))
        return self.remembered[key]

    def _run(self, batch: Int32s, asked: Int32s, like: EngineOutput) -> EngineOutput | None:
        """Return the candidate's outputs, None if it raised or they have another shape."""
        try:
            found = _by_name(self.candidate(batch, asked))
            for name, got, wanted in zip(OUTPUTS, found, like, strict=True):
                if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
                    raise ValueError(f"{name} {got.dtype} {got.shape}, expected {wanted.dtype} {wanted.shape}")
        except Exception as error:
            first_line = str(error).partition("\n")[0][:200]
            self.failures.append(f"{_name(batch)}: got {type(error).__name__}: {first_line}")
            return None
        return found

    @np.errstate(invalid="ignore")
    def _compare(self, batch: Int32s, wanted: EngineOutput, found: EngineOutput) -> None:
        valid = batch != PAD_ID
        self.all_finite &= all(bool(np.isfinite(values).all()) for values in found)
        if found.mask[~valid].any() or found.rank_masks.transpose(0, 2, 1)[~valid].any():
            self.failures.append(f"{_name(batch)}: got mask values at padding, expected 0")
        same = found.explained_ids == wanted.explained_ids  # [B, R]
        rows = same.all(axis=1)
        self._worst("mask", found.mask[rows], wanted.mask[rows])
        self._worst("rank_masks", found.rank_masks[same], wanted.rank_masks[same])
        self._worst("probs", found.probs, wanted.probs)
        self._worst("masked_probs", found.masked_probs[rows], wanted.masked_probs[rows])
        counted = valid & rows[:, None]
        self.mask_sum += float(np.abs(found.mask - wanted.mask)[counted].sum(dtype=np.float64))
        self.n_mask += int(counted.sum())
        self._count_labels(0, wanted.probs, found.probs, same)
        self._count_labels(1, wanted.masked_probs[rows], found.masked_probs[rows], same[rows])

    def _count_labels(self, kind: int, wanted: Array, found: Array, explained: Array) -> None:
        """Count equal labels; the class that was explained must be the same as well."""
        for rank, classes in enumerate(self.slices):
            ours, theirs = wanted[:, classes], found[:, classes]
            same = (ours.argmax(axis=1) == theirs.argmax(axis=1)) & explained[:, rank]
            best = np.sort(ours, axis=1)[:, -2:]
            tied = best[:, -1] - best[:, 0] <= self.thresholds.tie
            self.labels[kind, :, rank] += [len(same), int(same.sum()), int((same | tied).sum())]

    def _worst(self, name: str, found: Array, wanted: Array) -> None:
        """Keep the largest difference."""
        self.worst[name] = max(self.worst[name], _difference(found, wanted))

    def record(self) -> ProofRecord:
        """Judge what was added up."""
        limits = self.thresholds
        for name, difference in self.worst.items():
            if difference > (limit := getattr(limits, LIMITS[name])):
                self.failures.append(
                    f"{name}: got a largest difference of {difference:.3g}, expected at most {limit:g}"
                )
        mean = self.mask_sum / max(self.n_mask, 1)
        if mean > limits.mask_mean:
            self.failures.append(f"mask: got a mean difference of {mean:.3g}, expected at most {limits.mask_mean:g}")
        compared = np.maximum(self.labels[:, 0], 1)
        for kind, shares in zip(("labels", "masked labels"), self.labels[:, 2] / compared, strict=True):
            for rank, share in enumerate(shares):
                if share < limits.agreement:
                    self.failures.append(
                        f"{kind} of rank {rank}: got {share:.2%} agreement, expected {limits.agreement:.2%}"
                    )
        if not self.all_finite:
            self.failures.append("outputs: got values that are not finite, expected none")
        loaded = [name for name in ("torch", "onnxruntime", "openvino", "tensorrt") if name in sys.modules]
        return ProofRecord(
            verdict=PROOF_FAILED if self.failures else PROOF_PASSED,
            failures=tuple(self.failures[:10]),
            n_reads=sum(n_rows for n_rows, _ in self.shapes),
            n_tokens=self.n_tokens,
            lengths=tuple(sorted({length for _, length in self.shapes})),
            batch_sizes=tuple(sorted({n_rows for n_rows, _ in self.shapes})),
            label_agreement=tuple((self.labels[0, 1] / compared[0]).tolist()),
            masked_label_agreement=tuple((self.labels[1, 1] / compared[1]).tolist()),
            max_abs_diff=dict(self.worst),
            mask_mean_abs_diff=mean,
            all_finite=self.all_finite,
            tolerance_needed=max(self.worst.values()),
            thresholds=limits,
            versions={name: str(sys.modules[name].__version__) for name in loaded},
        )
