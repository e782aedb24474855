"""Masks of the same read seen otherwise: its reverse complement, and its bases, residues or words shuffled.

    reverse_complement   a read and its other strand are one molecule: do their masks agree, base by base?
    shuffled             the same bases in random order say nothing: is a mask still found that keeps the call?

Of texts whole words change places, with what is between them left where it is; single words may well say something.

Beside each stands what the classifier itself does, for an explanation can be no steadier than what it explains.
Source: Mechanistic Invariance Test, arXiv 2604.06549.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.models.explainer import Explainer
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.reads.chunk import BETWEEN_PAIR
from wyr_batch.texts.open import TEXTS

from ..data.batches import evaluation_batch, evaluation_batches
from ..data.coding import word_borders
from ..data.labelled import LabelledReads
from ..data.pieces import LabelledBatch, Pieces, cut_batch
from .explained import Explained, explain

Floats = npt.NDArray[np.float64]


@torch.no_grad()
def measure_controls(
    explanandum: Explanandum,
    explainer: Explainer,
    names: Sequence[str],
    reads: LabelledReads,
    window_bp: int,
    seed: int,
) -> dict[str, Any]:
    """Return both controls over some reads, the first window of each.

    `reverse_complement`, of nucleotides: correlation of masks per base, and per rank the share of reads called alike on
    both strands.
    `shuffled`: the mean mask for the classes of the whole read, and per rank the share of reads that keep their call
    after the shuffle, plain and under that mask.
    """
    mixed = _shuffled(reads, window_bp, np.random.default_rng(seed))
    correlations: list[float] = []
    alike: list[Any] = []
    after: list[Any] = []
    masked: list[Any] = []
    means: list[Any] = []
    for rows in evaluation_batches(reads, window_bp):
        forward = evaluation_batch(reads, rows, window_bp)
        found = explain(explanandum, explainer, forward)
        if reads.coding.has_strands:
            lengths = forward.ends.amax(dim=1).numpy()
            strand = Pieces(rows, np.zeros_like(rows), lengths, np.ones(len(rows), bool))
            backward = replace(cut_batch(reads, strand), labels=found.plain)
            turned = explain(explanandum, explainer, backward, "labels")
            alike.append((turned.plain == found.plain).numpy())
            for row, length in enumerate(lengths):
                here, there = _per_base(found, forward, row, length), _per_base(turned, backward, row, length)[::-1]
                if here.std() > 0 and there.std() > 0:
                    correlations.append(float(np.corrcoef(here, there)[0, 1]))
        noise = replace(evaluation_batch(mixed, rows, window_bp), labels=found.plain)
        spoilt = explain(explanandum, explainer, noise, "labels")
        mask = spoilt.mask()
        kept = explanandum.top_classes(spoilt.classify(mask))
        after.append((spoilt.plain == found.plain).numpy())
        masked.append((kept == found.plain).numpy())
        counted = spoilt.counted
        means.append(((mask * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)).numpy())

    def by_rank(parts: list[Any]) -> dict[str, float]:
        return dict(zip(names, np.concatenate(parts).mean(axis=0).round(4).tolist(), strict=True))

    shuffled = {
        "n_reads": len(reads),
        "mask_mean": round(float(np.concatenate(means).mean()), 4),
        "same_call": by_rank(after),
        "same_call_masked": by_rank(masked),
    }
    if not reads.coding.has_strands:
        return {"shuffled": shuffled}
    correlation = round(float(np.mean(correlations)), 4) if correlations else float("nan")
    strands = {"n_reads": len(reads), "mask_correlation": correlation, "same_call": by_rank(alike)}
    return {"reverse_complement": strands, "shuffled": shuffled}


def _shuffled(reads: LabelledReads, window_bp: int, rng: np.random.Generator) -> LabelledReads:
    """Return the reads with what they are made of in random order: bases of their first window, residues or words."""
    bases = reads.bases.copy()
    if reads.coding.kind == TEXTS:
        for row in range(len(reads)):
            bases[reads.offsets[row] : reads.offsets[row + 1]] = _words_shuffled(reads, row, rng)
        return replace(reads, bases=bases)
    for start, end in zip(reads.offsets[:-1], reads.offsets[1:], strict=True):
        rng.shuffle(bases[start : min(end, start + window_bp) if reads.coding.is_kmers else end])
    return replace(reads, bases=bases)


def _words_shuffled(reads: LabelledReads, row: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a text, as bytes, with its words in random order, of a pair those of each text by themselves."""
    text = reads.text(row)
    second = -1 if reads.second is None else int(reads.second[row])
    parts = [text] if second < 0 else [text[: second - len(BETWEEN_PAIR)], text[second:]]
    shuffled = []
    for part in parts:
        starts, ends = (places.tolist() for places in word_borders(part))
        words = [part[start:end] for start, end in zip(starts, ends, strict=True)]
        gaps = [part[end:start] for end, start in zip([0, *ends], [*starts, len(part)], strict=True)]
        mixed = [words[i] for i in rng.permutation(len(words))]
        shuffled.append(b"".join(chain.from_iterable(zip(gaps, [*mixed, b""], strict=True))))
    return np.frombuffer(BETWEEN_PAIR.encode().join(shuffled), np.uint8)


def _per_base(found: Explained, batch: LabelledBatch, row: int, length: int) -> Floats:
    """Return the mask of one read at each of its bases, float64 [length]."""
    starts: Tensor = batch.starts[row]
    tokens = starts >= 0
    index = torch.searchsorted(starts[tokens], torch.arange(length), right=True) - 1
    values: Floats = found.mask()[row][tokens][index.clamp(min=0)].double().numpy()
    return values
