"""Reads joined of two: where their halves lie, what they teach, and what they measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import toy_explainer, toy_explanandum
from wyr_batch.train.config import ExplainerTraining, LoopConfig
from wyr_batch.train.data.batches import StepBatches
from wyr_batch.train.data.labelled import LabelledReads
from wyr_batch.train.data.pieces import LabelledBatch, Pieces, joined_batch
from wyr_batch.train.fit.explainer import train_explainer
from wyr_batch.train.fit.explainer_loss import ExplainerLoss
from wyr_batch.train.fit.losses import outside_loss, target_area_loss
from wyr_batch.train.fit.trained_explainer import TrainedExplainer
from wyr_batch.train.measure.chimeras import Chimeras, choose_chimeras, mask_scorer, measure_chimeras, token_auc
from wyr_batch.train.measure.controls import measure_controls
from wyr_batch.train.measure.regions import random_segments

from wyr_batch.errors import UsageError
from wyr_batch.models.checkpoints import load_explainer
from wyr_batch.tokens.kmers import vocabulary

COMPLEMENT = str.maketrans("ACGT", "TGCA")
WORDS = vocabulary()
NAMES = ["superkingdom", "phylum", "genus"]


def reads_of(n: int, least: int = 60, most: int = 300, seed: int = 0) -> LabelledReads:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(least, most, n)
    labels = np.stack([rng.integers(0, k, n) for k in (2, 3, 5)], axis=1)
    labels[rng.random(n) < 0.2, 1:] = -1
    bases = rng.choice(np.frombuffer(b"ACGT", np.uint8), lengths.sum())
    return LabelledReads(bases, np.concatenate(([0], np.cumsum(lengths))), labels, np.ones(n, bool))


def text_of(reads: LabelledReads, pieces: Pieces, i: int) -> str:
    start = reads.offsets[pieces.rows[i]] + pieces.starts[i]
    text = reads.bases[start : start + pieces.lengths[i]].tobytes().decode()
    return text.translate(COMPLEMENT)[::-1] if pieces.reverse[i] else text


def drawn_pieces(reads: LabelledReads, n: int, rng: np.random.Generator, least: int) -> Pieces:
    rows = rng.integers(0, len(reads), n)
    lengths = rng.integers(least, 50, n)
    starts = (rng.random(n) * (reads.lengths[rows] - lengths + 1)).astype(np.int64)
    return Pieces(rows, starts, lengths, rng.random(n) < 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 99))
def test_joined_pieces_are_there_in_order_and_their_tokens_are_told_apart(n: int, seed: int) -> None:
    rng, reads = np.random.default_rng(seed), reads_of(9)
    asked, other, other_first = drawn_pieces(reads, n, rng, 1), drawn_pieces(reads, n, rng, 0), rng.random(n) < 0.5
    batch = joined_batch(reads, asked, other, other_first)
    for i in range(n):
        halves = [text_of(reads, asked, i), text_of(reads, other, i)]
        whole = "".join(halves[::-1] if other_first[i] else halves)
        n_tokens = int((batch.input_ids[i] != 1).sum())
        assert "".join(WORDS[token] for token in batch.input_ids[i, 1:n_tokens].tolist()) == whole
        first_bp = len(halves[1] if other_first[i] else halves[0])
        starts = batch.starts[i, 1:n_tokens]
        wanted = (starts >= first_bp if other_first[i] else starts < first_bp) | bool(other.lengths[i] == 0)
        assert torch.equal(batch.inside[i, 1:n_tokens], wanted)
        assert batch.inside[i, 0]
        assert batch.labels[i].tolist() == reads.labels[asked.rows[i]].tolist()
        expected = reads.labels[other.rows[i]].tolist() if other.lengths[i] else [-1, -1, -1]
        assert batch.other_labels[i].tolist() == expected


def test_so_large_a_share_of_a_batch_are_chimeras_of_differing_classes() -> None:
    reads = reads_of(60)
    plain, half = (StepBatches(reads, 32, batch_reads=64, chimera_share=share) for share in (0.0, 0.5))
    assert torch.equal(plain[3].input_ids, StepBatches(reads, 32, batch_reads=64)[3].input_ids)
    n_chimeras = 0
    for step in range(8):
        batch = half[step]
        assert torch.equal(batch.input_ids, half[step].input_ids), "a batch is a function of its step"
        chimera = (~batch.inside).any(dim=1)
        differ = (batch.labels != batch.other_labels) & (batch.labels >= 0) & (batch.other_labels >= 0)
        assert differ[chimera].any(dim=1).all()
        assert (batch.other_labels[~chimera] == -1).all()
        n_chimeras += int(chimera.sum())
    assert 0.4 < n_chimeras / (8 * 64) < 0.6


def test_losses_of_known_masks() -> None:
    mask, valid = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 9]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    mean = (0.5 + 1 / 3) / 2
    assert float(target_area_loss(mask * valid, valid, 0.6)) == pytest.approx((mean - 0.6) ** 2)
    assert float(target_area_loss(mask[:0], valid[:0], 0.6)) == 0
    masks = torch.tensor([[[1.0, 1, 0.5, 0], [1, 1, 1, 1], [1, 1, 1, 1]]])  # [1, 3, 4]
    inside = torch.tensor([[True, True, False, False]])
    targets, others = torch.tensor([[0, 1, -1]]), torch.tensor([[1, 1, 2]])
    # Only the first rank has a label on both sides, and another one: half of 0.5 is open outside.
    assert float(outside_loss(masks, inside, targets, others, valid[:1])) == pytest.approx(0.25)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_auc_is_the_share_of_pairs_in_order(tokens: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([[float(score) for score, _ in tokens]])
    inside = torch.tensor([[is_inside for _, is_inside in tokens]])
    pairs = [(a > b) + 0.5 * (a == b) for a, x in tokens for b, y in tokens if x and not y]
    found = float(token_auc(scores, inside, torch.ones_like(inside))[0])
    assert found == pytest.approx(np.mean(pairs)) if pairs else np.isnan(found)


def labelled_by_the_model(n: int) -> LabelledReads:
    """Reads whose labels are what the toy calls them, where it is sure."""
    reads, model = reads_of(n, 130, 200), toy_explanandum()
    pieces = Pieces(np.arange(n), np.zeros(n, np.int64), reads.lengths, np.zeros(n, bool))
    none = Pieces(np.arange(n), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, bool))
    with torch.no_grad():
        calls = model.top_classes(model(joined_batch(reads, pieces, none, np.zeros(n, bool)).input_ids))
    return LabelledReads(reads.bases, reads.offsets, calls.numpy(), reads.in_frame)


def test_chimeras_are_of_sure_pieces_and_scores_that_know_the_half_are_told_from_others() -> None:
    model, reads = toy_explanandum(), labelled_by_the_model(120)
    chosen = choose_chimeras(model, reads, 4, piece_bp=120)
    assert [len(group) for group in chosen[:2]] == [8, 8]
    group = chosen[0]
    labels = reads.labels[group.asked.rows, 0], reads.labels[group.other.rows, 0]
    assert (labels[0] != labels[1]).all()
    batch = group.batches(reads)[0]
    assert torch.equal(batch.input_ids[0], batch.input_ids[1]), "both questions are about one read"
    assert torch.equal(batch.inside[0, 1:], ~batch.inside[1, 1:])

    def knows(batch: LabelledBatch, rank: int, targets: torch.Tensor) -> torch.Tensor:
        return 4.0 * batch.inside - 2.0

    right, wrong, blind = (
        measure_chimeras(model, reads, [group], scorer)[0]
        for scorer in (knows, lambda *asked: -knows(*asked), lambda *asked: 0.0 * knows(*asked))
    )
    assert [found["auc"]["mean"] for found in (right, wrong, blind)] == [1.0, 0.0, 0.5]
    assert right["inside"]["mean"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert right["outside"]["mean"] == pytest.approx(1 / (1 + np.exp(2)))
    measured = measure_chimeras(model, reads, chosen, mask_scorer(model, toy_explainer()))
    assert measured[0]["n"] == 4
    assert measured[0]["auc"]["low"] <= measured[0]["auc"]["mean"] <= measured[0]["auc"]["high"]
    none = Chimeras(0, group.asked.take(np.empty(0, int)), group.other.take(np.empty(0, int)), np.empty(0, bool))
    assert np.isnan(measure_chimeras(model, reads, [none], knows)[0]["auc"]["mean"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 30), st.integers(0, 99))
def test_random_segments_are_as_long_and_do_not_overlap(lengths: list[int], spare: int, seed: int) -> None:
    n_tokens = sum(lengths) + spare
    placed = random_segments(np.array(lengths), n_tokens, np.random.default_rng(seed))
    assert (len(placed), int(placed.sum())) == (n_tokens, sum(lengths))


def test_the_other_strand_and_a_shuffle_are_measured_beside_the_classifier() -> None:
    model, reads = toy_explanandum(), reads_of(10)
    found = measure_controls(model, toy_explainer(), NAMES, reads, 300, seed=0)
    assert -1 <= found["reverse_complement"]["mask_correlation"] <= 1
    assert set(found["reverse_complement"]["same_call"]) == set(NAMES)
    assert found == measure_controls(model, toy_explainer(), NAMES, reads, 300, seed=0)
    same = LabelledReads(np.full_like(reads.bases, ord("A")), reads.offsets, reads.labels, reads.in_frame)
    calls = measure_controls(model, toy_explainer(), NAMES, same, 300, seed=0)["shuffled"]["same_call"]
    assert calls == dict.fromkeys(NAMES, 1.0), "shuffling a read of one letter changes nothing"


@pytest.mark.parametrize("kind", ["lstm", "readout"])
def test_both_kinds_train_on_chimeras_towards_an_area(kind: str, tmp_path: Path) -> None:
    config = ExplainerTraining(
        kind=kind,
        chimera_share=0.5,
        lambda_outside=1.0,
        target_area=0.3,
        lambda_area=50.0,
        lambda_other=0.0,
        batch_reads=8,
    )
    reads, model = labelled_by_the_model(40), toy_explanandum()
    loop = LoopConfig(steps=12, evaluate_every=12, learning_rate=2e-2, threads=1)
    trained = train_explainer(model, reads, reads.sample(8), tmp_path / kind, config, loop)
    again = load_explainer(tmp_path / kind)
    assert again.kind == trained.kind == kind
    loss = ExplainerLoss(model, config, bf16=False)
    terms = loss(TrainedExplainer(trained), vars(StepBatches(reads, 16, batch_reads=8, chimera_share=0.5)[0]))
    assert set(terms) == {"classification", "entropy", "area", "variation", "outside"}
    assert float(terms["area"].detach()) < 50 * (0.5 - 0.3) ** 2, "nearer to the area than a half is, where masks start"
    if kind == "readout":
        with pytest.raises(UsageError, match="--start-from: got an Explainer of the kind readout, expected lstm"):
            train_explainer(
                model, reads, reads, tmp_path / "x", ExplainerTraining(), loop, start_from=tmp_path / "readout"
            )
