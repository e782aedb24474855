"""Does the masked read keep the call, and does what the mask hides say nothing? The paper's evaluation, and more.

    reads -> called and explained (`explained`) -> five maskings -> calls      Table 1, rows 1 to 5
                                                -> chunks -> calls             rows 6 and 7
                                                -> masks                       figures 5, 6 and 7
    some of the reads -> tokens hidden and shown best first                    faithfulness
                      -> mask logits shifted                                   kept accuracy against mean mask
                      -> whole segments hidden and shown                       region_comprehensiveness, _sufficiency
                      -> the other strand, bases or words shuffled             reverse_complement, shuffled
                      -> another Explainer's masks                             sanity check
    halves of two classes joined -> asked for either -> masks                  chimeras
    spans that people marked                                                   rationales

Each read is its first window. The result is a dict of plain numbers; `tables` and `figures` draw from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.models.explainer import Explainer, check_pair
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.ranks import Rank

from ..config import EvaluationConfig
from ..data.batches import evaluation_batch, evaluation_batches
from ..data.labelled import LabelledReads
from .blank import BLANK_READS, blank_divergence
from .chimeras import choose_chimeras, mask_scorer, measure_chimeras
from .chunks import classify_chunks
from .controls import measure_controls
from .explained import Explained, explain
from .faithfulness import Faithfulness, class_probabilities, permuted, probability_curves
from .maskstats import MaskStatistics, compact
from .metrics import balanced_accuracy
from .rationales import RationaleAgreement
from .regions import region_measures

PLAIN, MASKS, INVERTED, ROUNDED, INVERTED_ROUNDED = MASKINGS = (
    "plain",
    "masks",
    "inverted_masks",
    "rounded_masks",
    "inverted_rounded_masks",
)
CHUNKS = ("average_not_relevant_chunk", "average_relevant_chunk")
ROWS = (*MASKINGS, *reversed(CHUNKS))
SHIFTS = (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)


def maskings(found: Explained, mask: Tensor) -> dict[str, Tensor]:
    """Return the masks of Table 1's rows 2 to 5, float [B, T]."""
    rounded = (mask >= 0.5).to(mask.dtype)
    model, ids = found.model, found.input_ids
    return {
        MASKS: mask,
        INVERTED: model.complement(ids, mask),
        ROUNDED: rounded,
        INVERTED_ROUNDED: model.complement(ids, rounded),
    }


@torch.inference_mode()
def evaluate(
    explanandum: Explanandum,
    explainer: Explainer,
    ranks: Sequence[Rank],
    reads: LabelledReads,
    config: EvaluationConfig,
    randomised: Explainer | None = None,
) -> dict[str, Any]:
    """Measure everything.

    Args:
        reads: labelled reads; a null label is left out of its rank.
        randomised: an Explainer trained for the same classifier with randomised weights, for the sanity check.
    Returns: `balanced_accuracy` {rank: {row of Table 1: value}}, `same_call` (share of the reads whose call equals the
        plain one), the masks' statistics over tokens (special ones not counted), `blank`, `rationales`, `chimeras`,
        `faithfulness`, `tradeoff`, `reverse_complement`, `shuffled`, `sanity`, and `figure_data`.
    """
    check_pair(explanandum, explainer)
    if randomised is not None:
        check_pair(explanandum, randomised, "randomised explainer")
    names = [rank.name for rank in ranks]
    calls = {row: np.full((len(reads), len(ranks)), -1, np.int64) for row in ROWS}
    n_chunks = np.zeros((len(reads), 2), np.int64)
    statistics = MaskStatistics()
    rationales = RationaleAgreement(reads.rationales, config.seed) if reads.rationales else None
    for rows in evaluation_batches(reads, config.window_bp):
        batch = evaluation_batch(reads, rows, config.window_bp)
        found = explain(explanandum, explainer, batch, config.explained)
        mask = found.mask()
        calls[PLAIN][rows] = found.plain
        for name, given in maskings(found, mask).items():
            calls[name][rows] = explanandum.top_classes(found.classify(given))
        opened = found.opened(mask)
        probs, counts = classify_chunks(
            explanandum, batch.input_ids, opened.float(), found.valid, reads.coding.vocabulary
        )
        for kind, name in enumerate(CHUNKS):
            top = torch.stack([probs[:, kind, s].argmax(dim=-1) for s in explanandum.slices], dim=1)
            calls[name][rows] = torch.where(counts[:, kind : kind + 1] > 0, top, -1)
        n_chunks[rows] = counts
        statistics.add(*compact(mask, found.content, opened))
        if rationales is not None:
            rationales.add(rows, batch, found, mask)
    measured: dict[str, Any] = {} if rationales is None else {"rationales": rationales.summary()}
    curves: dict[str, Any] = {}
    if config.chimeras and not reads.has_pairs:
        chimeras = choose_chimeras(explanandum, reads, config.chimeras, seed=config.seed)
        located = measure_chimeras(explanandum, reads, chimeras, mask_scorer(explanandum, explainer))
        measured["chimeras"] = dict(zip(names, located, strict=True))
    if config.faithfulness_reads:
        sample = reads.sample(config.faithfulness_reads, config.seed)
        closer, curves = _closer_look(explanandum, explainer, names, sample, config, randomised)
        controls = measure_controls(explanandum, explainer, names, sample, config.window_bp, config.seed)
        measured = {**measured, **closer, **controls}
    some = np.arange(min(BLANK_READS, len(reads)))
    blank = blank_divergence(explanandum, evaluation_batch(reads, some, config.window_bp).input_ids)
    coding = reads.coding
    window = {"window_bp": config.window_bp} if coding.is_kmers else {"window_tokens": coding.window_tokens}
    return {
        "n_reads": len(reads),
        "input": coding.kind,
        **window,
        "explained": config.explained,
        "n_labelled": {rank.name: int((reads.labels[:, r] >= 0).sum()) for r, rank in enumerate(ranks)},
        "balanced_accuracy": {
            name: {row: round(_accuracy(reads.labels[:, r], calls[row][:, r]), 4) for row in ROWS}
            for r, name in enumerate(names)
        },
        "same_call": {
            name: {row: round(_same(calls[PLAIN][:, r], calls[row][:, r]), 4) for row in ROWS[1:]}
            for r, name in enumerate(names)
        },
        "reads_without": {name: int((n_chunks[:, kind] == 0).sum()) for kind, name in enumerate(CHUNKS)},
        **statistics.summary(),
        "blank": dict(zip(names, blank.double().numpy().round(4).tolist(), strict=True)),
        **measured,
        "figure_data": {
            **statistics.figures(),
            **curves,
            "examples": _examples(explanandum, explainer, ranks, reads, calls, config),
        },
    }


def _accuracy(labels: npt.NDArray[np.int64], called: npt.NDArray[np.int64]) -> float:
    """Balanced accuracy of the reads that have a call (one without chunks of a kind has none)."""
    return balanced_accuracy(np.where(called >= 0, labels, -1), called)


def _same(plain: npt.NDArray[np.int64], called: npt.NDArray[np.int64]) -> float:
    known = called >= 0
    return float((plain == called)[known].mean()) if known.any() else float("nan")


def _closer_look(
    explanandum: Explanandum,
    explainer: Explainer,
    names: list[str],
    reads: LabelledReads,
    config: EvaluationConfig,
    randomised: Explainer | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure on some reads what takes many passes: faithfulness, trade-off, sanity check."""
    faithful = Faithfulness(names)
    generator, placed = torch.Generator().manual_seed(config.seed), np.random.default_rng(config.seed)
    shifted: dict[float, list[Any]] = {shift: [] for shift in SHIFTS}
    agreement: list[npt.NDArray[np.float64]] = []
    for rows in evaluation_batches(reads, config.window_bp):
        batch = evaluation_batch(reads, rows, config.window_bp)
        found = explain(explanandum, explainer, batch, config.explained)
        mask = found.mask()
        chance = permuted(mask, found.content, generator)
        for name, scores in (("explainer", mask), ("random", chance)):
            curves = probability_curves(explanandum, found.embedded, found.input_ids, found.targets, scores)
            faithful.add(name, *curves)
            _add_soft(faithful, name, found, scores, curves[0][0])
        regions = region_measures(explanandum, found, mask, found.opened(mask), placed)
        for name, by_measure in zip(("explainer", "random"), regions.values(), strict=True):
            for measure, values in by_measure.items():
                faithful.add_values(name, measure, values)
        for shift, parts in shifted.items():
            parts.append((rows, *_shifted(found, found.mask(shift))))
        if randomised is not None:
            other = explain(explanandum, randomised, batch, config.explained).mask()
            agreement.append(_agreement(mask, other, found.content))
    measured: dict[str, Any] = {
        "faithfulness": {"n_reads": len(reads), **faithful.summary()},
        "tradeoff": [_tradeoff_point(shift, parts, reads, names) for shift, parts in shifted.items()],
    }
    if randomised is not None:
        correlation, overlap, difference = np.concatenate(agreement).mean(axis=0).round(4).tolist()
        measured["sanity"] = {
            "against": "an Explainer of the classifier with randomised weights",
            "mask_correlation": correlation,
            "rounded_agreement": overlap,
            "mask_mean_abs_difference": difference,
        }
    return measured, {"curves": faithful.curves()}


def _add_soft(faithful: Faithfulness, name: str, found: Explained, mask: Tensor, plain: Tensor) -> None:
    """Add what the explained classes lose under the soft mask and under its complement, plain being [B, R]."""
    left = found.model.complement(found.input_ids, mask)
    for measure, given in (("loss_under_mask", mask), ("loss_under_complement", left)):
        probabilities = class_probabilities(found.model, found.classify(given), found.targets)
        faithful.add_values(name, measure, plain - probabilities)


def _shifted(found: Explained, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the calls under a mask and its complement, int64 [B, R] each, and the mask's mean, [B]."""
    model, tokens = found.model, found.content
    mean = (mask * tokens).sum(dim=1) / tokens.sum(dim=1).clamp(min=1)
    kept = model.top_classes(found.classify(mask))
    left = model.top_classes(found.classify(model.complement(found.input_ids, mask)))
    return kept, left, mean


def _tradeoff_point(shift: float, parts: list[Any], reads: LabelledReads, names: list[str]) -> dict[str, Any]:
    rows = np.concatenate([part[0] for part in parts])
    kept, left, mean = (np.concatenate([part[i].numpy() for part in parts]) for i in (1, 2, 3))
    labels = reads.labels[rows]

    def by_rank(called: npt.NDArray[np.int64]) -> dict[str, float]:
        return {name: round(_accuracy(labels[:, r], called[:, r]), 4) for r, name in enumerate(names)}

    return {
        "logit_shift": shift,
        "mask_mean": round(float(mean.mean()), 4),
        "masks": by_rank(kept),
        "inverted_masks": by_rank(left),
    }


def _agreement(mask: Tensor, other: Tensor, content: Tensor) -> npt.NDArray[np.float64]:
    """Return per read: Pearson correlation of two masks, share of tokens that round alike, mean difference; [B, 3]."""
    out = []
    for a, b, tokens in zip(mask.double(), other.double(), content, strict=True):
        x, y = a[tokens], b[tokens]
        centred = x - x.mean(), y - y.mean()
        norm = centred[0].norm() * centred[1].norm()
        correlation = float(centred[0] @ centred[1] / norm) if norm > 0 else 0.0
        out.append((correlation, float(((x >= 0.5) == (y >= 0.5)).double().mean()), float((x - y).abs().mean())))
    return np.array(out)


def _examples(
    explanandum: Explanandum,
    explainer: Explainer,
    ranks: Sequence[Rank],
    reads: LabelledReads,
    calls: dict[str, npt.NDArray[np.int64]],
    config: EvaluationConfig,
) -> list[dict[str, Any]]:
    """Return the first reads called right at the finest rank (figure 5), as tokens and mask values."""
    right = np.flatnonzero((reads.labels[:, -1] >= 0) & (calls[PLAIN][:, -1] == reads.labels[:, -1]))
    lengths = np.minimum(reads.lengths, config.window_bp) if reads.n_tokens is None else reads.n_tokens
    long = right[np.argsort(-lengths[right], kind="stable")]
    rows = np.sort(long[: config.examples])
    if not len(rows):
        return []
    batch = evaluation_batch(reads, rows, config.window_bp)
    found = explain(explanandum, explainer, batch, config.explained)
    examples = []
    for i, (row, mask, content) in enumerate(zip(rows, found.mask(), found.content, strict=True)):
        text = reads.text(int(row)).decode("utf-8", "replace")
        spans = zip(batch.starts[i][content].tolist(), batch.ends[i][content].tolist(), strict=True)
        examples.append(
            {
                "header": reads.headers[row] if reads.headers else "",
                "called": {rank.name: rank.labels[calls[PLAIN][row, r]] for r, rank in enumerate(ranks)},
                "tokens": [text[start:end] for start, end in spans],
                "mask": mask[content].double().numpy().round(3).tolist(),
            }
        )
    return examples
