"""The proof: does a way to compute a bundle give what float32 gives? Measured, judged, and written down.

    batches of several lengths and sizes -> reference -> \\
                                         -> candidate -> differences, label agreement -> ProofRecord
    some rows of each batch, alone       -> candidate -> /

Lengths and batch sizes are others than the one traced, rows are ragged, one row of a batch is all N, and every length
is run once more with the explained classes asked for by number. A candidate that raises has failed: a dimension
frozen at export shows in that way. The exporter proves files with it, and first_use.py an engine on a GPU. Batches are
made in batches.py.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.bundle import PROOF_PASSED
from wyr_batch.engines.signature import OUTPUTS, EngineOutput, engine_output, outputs_of
from wyr_batch.proof.batches import BATCH_SIZES, LENGTHS, Edge, edge_batches, read_batches
from wyr_batch.vocabulary import SIX_MERS, Vocabulary

PROOF_FAILED = "failed"
N_ALONE = 3  # rows of a batch that are run alone as well
LIMITS = {"mask": "mask", "rank_masks": "mask", "probs": "probs", "masked_probs": "probs", "padding": "padding"}

Int32s = npt.NDArray[np.int32]
Array = npt.NDArray[Any]
Outputs = Mapping[str, Array] | Sequence[Array]
Remembered = dict[tuple[bytes, bytes, tuple[int, ...]], EngineOutput]  # by input_ids, explain_ids and their shape
Candidate = Callable[[Int32s, Int32s], Outputs]  # (input_ids [B, T], explain_ids [B, R]) -> the outputs


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
    """What was compared and how far off it was; lists per rank are in rank order.

    Attributes:
        n_reads: rows, each run.
        n_given_reads, n_whole_reads: real reads that there were, and those of them that were run, each once as a whole,
            besides the batches that are cut from them.
        masked_label_agreement: empty without masked calls.
        max_abs_diff: of mask, rank_masks, probs, masked_probs; padding: of a row alone or in a batch.
        tolerance_needed: the smallest one for all differences that would have passed.
    """

    verdict: str
    failures: tuple[str, ...]
    n_reads: int
    n_tokens: int
    n_given_reads: int
    n_whole_reads: int
    lengths: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    label_agreement: tuple[float, ...]
    masked_label_agreement: tuple[float, ...]
    max_abs_diff: Mapping[str, float]
    mask_mean_abs_diff: float
    all_finite: bool
    tolerance_needed: float
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
    masked_calls: bool = True,
    only_size: int | None = None,
    reads_s: float = math.inf,
    show: Callable[[float], None] = lambda share: None,
    vocabulary: Vocabulary = SIX_MERS,
) -> ProofRecord:
    """Compare a candidate with the float32 reference and judge it.

    Args:
        candidate: takes int32 arrays input_ids [B, T] and explain_ids [B, R], returns the five outputs by name, or
            in the order of `EngineOutput`.
        reference: the same in float32.
        slices: the classes of each rank among all C.
        max_tokens: the longest row the candidate takes, special tokens counted; always among the lengths.
        reads: token ids of real reads without special ones; the batches are cut from them, and each is run once
            besides, as much of it as fits. None: seeded random tokens.
        batch_sizes: rows; a batch of more than `MAX_BATCH_TOKENS` gets fewer, one of set size of `MAX_EDGE_TOKENS`.
        remembered: the reference's outputs, kept for the next candidate that is compared on the same reads. Of those
            it runs the ones that the first had time for, so that the reference is not run again.
        masked_calls: the candidate classifies masked reads; without, those of the reference are not looked at.
        only_size: of the batches of one length, run the largest of at most so many rows alone.
        reads_s: seconds after which no more of the reads are run as a whole, unless labels differ too often among
            those that were: then all of them are.
        show: called with the share of tokens that have been run.
        vocabulary: of the bundle.
    """
    known = {} if remembered is None else remembered
    only_remembered = bool(known)
    tally = _Tally(candidate, reference, slices, thresholds, masked_calls, known, vocabulary.pad_id)
    edges = edge_batches(reads, lengths, batch_sizes, max_tokens, vocabulary)
    if only_size is not None:
        of_each_length = {edge.batch.shape[1]: edge for edge in edges if len(edge.batch) <= only_size}
        edges = [Edge(edge.batch, others_too=True, alone_too=True) for edge in of_each_length.values()]
    whole = read_batches(reads, batch_sizes, max_tokens, vocabulary)
    n_cells = sum(edge.batch.size for edge in edges) + sum(batch.size for batch in whole)
    n_done = n_whole = 0
    for batch, others_too, alone_too in edges:
        found = tally.add(batch)
        if alone_too:
            tally.add_alone(batch, found)
        if others_too:
            tally.add(batch, other_classes=True)
        n_done += batch.size
        show(n_done / n_cells)
    end_s = time.monotonic() + reads_s
    for batch in whole:
        if time.monotonic() > end_s or (only_remembered and not tally.is_remembered(batch)):
            if not tally.labels_differ():
                break
            end_s, only_remembered = math.inf, False
        tally.add(batch)
        n_done, n_whole = n_done + batch.size, n_whole + len(batch)
        show(n_done / n_cells)
    return tally.record(len(reads or ()), n_whole)


def _by_name(outputs: Outputs) -> EngineOutput:
    """Return a copy of outputs that come by name or in order; those of the second pass may be left out."""
    if not isinstance(outputs, Mapping):
        outputs = dict(zip(outputs_of(len(outputs) == len(OUTPUTS)), outputs, strict=True))
    return engine_output({name: np.array(values) for name, values in outputs.items()})


def _difference(a: Array, b: Array) -> float:
    """Return the largest absolute difference, infinite if anything is not a number, 0 of nothing."""
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf).max(initial=0.0))


def _key(batch: Int32s, asked: Int32s) -> tuple[bytes, bytes, tuple[int, ...]]:
    return batch.tobytes(), asked.tobytes(), batch.shape


def _name(batch: Int32s) -> str:
    return f"batch of {batch.shape[0]} x {batch.shape[1]} tokens"


@dataclass
class _Tally:
    """Adds up differences over batches."""

    candidate: Candidate
    reference: Candidate
    slices: Sequence[slice]
    thresholds: Thresholds
    masked_calls: bool = True
    remembered: Remembered = field(default_factory=dict)
    pad_id: int = SIX_MERS.pad_id
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
        asked = self._predicted(batch)
        wanted = self._wanted(batch, asked)
        if other_classes:
            asked = (wanted.explained_ids + 1) % np.array([s.stop - s.start for s in self.slices], np.int32)
            wanted = self._wanted(batch, asked)
        self.shapes.append(batch.shape)
        self.n_tokens += int((batch != self.pad_id).sum())
        found = self._run(batch, asked, wanted)
        if found is not None:
            self._compare(batch, wanted, found)
        return found

    def add_alone(self, batch: Int32s, padded: EngineOutput | None) -> None:
        """Run some rows of a batch alone, without padding, and compare them with the same rows in the batch."""
        if padded is None or len(batch) == 1:
            return
        for row in range(min(N_ALONE, len(batch))):
            n = int((batch[row] != self.pad_id).sum())
            explained = np.ascontiguousarray(padded.explained_ids[row : row + 1])
            cut = EngineOutput._make(values[row : row + 1] for values in padded)
            cut = cut._replace(mask=cut.mask[:, :n], rank_masks=cut.rank_masks[..., :n])
            alone = self._run(np.ascontiguousarray(batch[row : row + 1, :n]), explained, cut)
            if alone is not None:
                for values, in_batch in zip(alone, cut, strict=True):
                    self._worst("padding", values, in_batch)

    def is_remembered(self, batch: Int32s) -> bool:
        """Say whether the reference has been run on a batch."""
        return _key(batch, self._predicted(batch)) in self.remembered

    def _predicted(self, batch: Int32s) -> Int32s:
        """Return explain_ids that ask for the predicted classes."""
        return np.full((len(batch), len(self.slices)), -1, np.int32)

    def _wanted(self, batch: Int32s, asked: Int32s) -> EngineOutput:
        """Return the reference's outputs."""
        key = _key(batch, asked)
        if key not in self.remembered:
            self.remembered[key] = _by_name(self.reference(batch, asked))
        wanted = self.remembered[key]
        return wanted if self.masked_calls else wanted._replace(masked_probs=wanted.masked_probs[:, :0])

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
        valid = batch != self.pad_id
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
        if self.masked_calls:
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

    def labels_differ(self) -> list[str]:
        """Return the kinds and ranks of labels that agree too seldom, with how often they do."""
        limit, compared = self.thresholds.agreement, np.maximum(self.labels[:, 0], 1)
        kinds = ("labels", "masked labels") if self.masked_calls else ("labels",)
        return [
            f"{kind} of rank {rank}: got {share:.2%} agreement, expected {limit:.2%}"
            for kind, shares in zip(kinds, self.labels[:, 2] / compared, strict=False)
            for rank, share in enumerate(shares)
            if share < limit
        ]

    def record(self, n_given_reads: int, n_whole_reads: int) -> ProofRecord:
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
        self.failures += self.labels_differ()
        if not self.all_finite:
            self.failures.append("outputs: got values that are not finite, expected none")
        compared = np.maximum(self.labels[:, 0], 1)
        loaded = [name for name in ("torch", "onnxruntime", "openvino", "tensorrt") if name in sys.modules]
        return ProofRecord(
            verdict=PROOF_FAILED if self.failures else PROOF_PASSED,
            failures=tuple(self.failures[:10]),
            n_reads=sum(n_rows for n_rows, _ in self.shapes),
            n_tokens=self.n_tokens,
            n_given_reads=n_given_reads,
            n_whole_reads=n_whole_reads,
            lengths=tuple(sorted({length for _, length in self.shapes})),
            batch_sizes=tuple(sorted({n_rows for n_rows, _ in self.shapes})),
            label_agreement=tuple((self.labels[0, 1] / compared[0]).tolist()),
            masked_label_agreement=tuple((self.labels[1, 1] / compared[1]).tolist()) if self.masked_calls else (),
            max_abs_diff=dict(self.worst),
            mask_mean_abs_diff=mean,
            all_finite=self.all_finite,
            tolerance_needed=max(self.worst.values()),
            thresholds=limits,
            versions={name: str(sys.modules[name].__version__) for name in loaded},
        )
