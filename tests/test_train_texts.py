"""Explainers of a classifier of texts: both kinds find the word that decides, and every measure says so."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_texts import LABELS, MULTI, MULTI_SIGNAL, labelled, made_texts, trained_bert
from wyr_batch.train.config import EvaluationConfig, ExplainerTraining, LoopConfig
from wyr_batch.train.data.batches import StepBatches, evaluation_batch
from wyr_batch.train.data.coding import coding_of
from wyr_batch.train.data.labelled import LabelledReads
from wyr_batch.train.data.pieces import Pieces
from wyr_batch.train.fit.explainer import ExplainerLoss, new_explainer, train_explainer
from wyr_batch.train.fit.trained_explainer import TrainedExplainer
from wyr_batch.train.fit.warmstart import WarmStartLoss
from wyr_batch.train.measure.blank import blank_divergence, blank_warnings
from wyr_batch.train.measure.chimeras import choose_chimeras, mask_scorer, measure_chimeras, token_auc
from wyr_batch.train.measure.chunks import classify_chunks
from wyr_batch.train.measure.controls import measure_controls
from wyr_batch.train.measure.evaluate import evaluate
from wyr_batch.train.measure.explained import Explained, explain, open_tokens
from wyr_batch.train.measure.faithfulness import probability_curves
from wyr_batch.train.measure.rationales import RationaleAgreement, average_precision, matched_f1, token_spans

from wyr_batch.cli import main
from wyr_batch.models.explainer import Explainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers' and accelerate's own making
KINDS = ("lstm", "readout")


def coded(n: int, seed: int, multi: bool = False) -> LabelledReads:
    return labelled(made_texts(n, seed, multi)).coded(coding_of(trained_bert(multi).model))


def trained(kind: str, multi: bool = False) -> Explainer:
    return _trained(kind, multi)  # made once, however it is asked for


@cache
def _trained(kind: str, multi: bool) -> Explainer:
    config = ExplainerTraining(
        kind=kind, batch_reads=16, lambda_other=0.0, full_share=0.7, complement="call", chimera_share=0.0
    )
    loop = LoopConfig(steps=80, evaluate_every=80, learning_rate=1e-2, threads=1)
    folder = Path(mkdtemp(prefix="explainer-"))
    return train_explainer(trained_bert(multi).model, coded(400, 1, multi), coded(16, 2, multi), folder, config, loop)


def explained(kind: str, reads: LabelledReads, multi: bool = False) -> tuple[Explained, Any]:
    batch, explainer = evaluation_batch(reads, np.arange(len(reads)), 0), trained(kind, multi)
    with torch.no_grad():
        return explain(trained_bert(multi).model, explainer, batch), batch


def inside_of(batch: Any, spans: Any) -> torch.Tensor:
    """Return which tokens overlap spans, one loop after the other."""
    found = torch.zeros(batch.starts.shape, dtype=torch.bool)
    for row, marked in enumerate(spans):
        for start, end in marked:
            found[row] |= (batch.starts[row] < end) & (batch.ends[row] > start)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_masks_lie_on_the_word_that_decides(kind: str) -> None:
    reads = coded(60, 3)
    found, batch = explained(kind, reads)
    assert (found.plain[:, 0] == torch.from_numpy(reads.labels[:, 0])).float().mean() > 0.95
    mask = found.mask()
    assert (mask[found.valid & ~found.content] == 1).all(), "special tokens are kept"
    assert not mask[~found.valid].any()
    assert (batch.starts >= 0).equal(found.content)
    inside = inside_of(batch, reads.rationales)
    assert float(token_auc(mask, inside, found.content).mean()) > 0.95
    assert float(mask[inside].mean()) > 0.5 > float(mask[found.content & ~inside].mean()) + 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_several_labels_lie_on_the_word_of_each(kind: str) -> None:
    reads = coded(40, 3, multi=True)
    found, batch = explained(kind, reads, multi=True)
    assert (found.plain == torch.from_numpy(reads.labels)).float().mean() > 0.95
    masks, aucs = found.rank_masks(), []
    for rank, signal in enumerate(MULTI_SIGNAL.values()):
        at = [reads.text(row).decode().find(signal) for row in range(len(reads))]
        present = [row for row in range(len(reads)) if at[row] >= 0 and found.plain[row, rank] == 1]
        inside = inside_of(batch, [[(start, start + len(signal))] if start >= 0 else [] for start in at])
        aucs.append(token_auc(masks[present, rank], inside[present], found.content[present]))
    assert float(torch.cat(aucs).mean()) > 0.9
    joined = found.mask()
    for row in range(len(reads)):
        ranks = (
            torch.flatnonzero(found.plain[row] == 1) if hasattr(torch, "flatnonzero") else found.plain[row].nonzero()
        )
        ranks = ranks.flatten().tolist() or [0, 1]
        torch.testing.assert_close(joined[row], masks[row, ranks].amax(dim=0))


def test_area_and_variation_are_of_content_alone() -> None:
    model, reads = trained_bert().model, coded(8, 5)
    batch = evaluation_batch(reads, np.arange(8), 0)
    loss = ExplainerLoss(model, ExplainerTraining(kind="readout", area_least=0.0, area_most=1.0), bf16=False)
    torch.manual_seed(1)
    explainer = new_explainer(model, "readout")
    with torch.no_grad():
        explainer.head.bias.normal_()
        explainer.head.weight.normal_()
        terms = loss(TrainedExplainer(explainer), vars(batch))
        found = explain(model, explainer, batch)
    mask = torch.sigmoid(found.logits[:, 0])
    areas, variations = [], []
    for row, content in zip(mask, found.content, strict=True):
        own = row[content]
        areas.append(float(own.mean()))
        variations.append(float(own.diff().abs().sum() / len(own)))
    assert float(terms["variation"]) == pytest.approx(np.mean(variations), abs=1e-5)
    # The bounds 0 and 1 ask for no ones and forbid none, so only the mean is left.
    assert float(terms["area"]) == pytest.approx(np.mean(areas), abs=1e-5)


def test_a_warm_start_and_the_kinds_fit_the_classifier() -> None:
    model, reads = trained_bert().model, coded(8, 5)
    explainer = new_explainer(model, "readout")
    assert not explainer.config.evidence_start, "a tanh layer on [CLS] leaves no evidence to start from"
    assert new_explainer(model, "lstm").config.vocab_size == model.vocab_size
    warm = WarmStartLoss(model, 0.3, bf16=False)
    terms = warm(TrainedExplainer(explainer), vars(evaluation_batch(reads, np.arange(8), 0)))
    assert torch.isfinite(terms["evidence"])


def test_training_batches_and_what_they_teach_are_the_same_again(tmp_path: Path) -> None:
    model, reads = trained_bert().model, coded(40, 6)
    config = ExplainerTraining(kind="lstm", batch_reads=8, chimera_share=0.5, lambda_outside=1.0, lambda_other=0.0)
    loop = LoopConfig(steps=4, evaluate_every=4, threads=1)
    first, again = (train_explainer(model, reads, reads.sample(8), tmp_path / n, config, loop) for n in "ab")
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    batches = StepBatches(reads, 4, batch_reads=8, chimera_share=0.5)
    assert torch.equal(batches[2].input_ids, StepBatches(reads, 4, batch_reads=8, chimera_share=0.5)[2].input_ids)


def test_chunks_of_texts_have_special_tokens_on_both_sides() -> None:
    model, reads = trained_bert().model, coded(6, 7)
    batch = evaluation_batch(reads, np.arange(6), 0)
    mask = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, counts = classify_chunks(
            model, batch.input_ids, mask, model.valid(batch.input_ids), reads.coding.vocabulary
        )
        for row in range(6):
            chunks: dict[bool, list[list[int]]] = {False: [], True: []}
            before = None
            for t in range(batch.input_ids.shape[1]):
                if batch.starts[row, t] < 0:
                    continue
                kind = bool(mask[row, t] >= 0.5)
                if kind != before:
                    chunks[kind].append([])
                chunks[kind][-1].append(int(batch.input_ids[row, t]))
                before = kind
            for kind, pieces in chunks.items():
                assert counts[row, int(kind)] == len(pieces)
                if pieces:
                    each = [model.probabilities(model(torch.tensor([[2, *piece, 3]])))[0] for piece in pieces]
                    torch.testing.assert_close(found[row, int(kind)], torch.stack(each).mean(dim=0), atol=1e-5, rtol=0)


def test_segments_are_of_words_whose_mean_mask_is_a_half() -> None:
    words = torch.tensor([[-1, 0, 0, 1, 2, 2, -1]])
    mask = torch.tensor([[1.0, 0.9, 0.2, 0.4, 0.3, 0.6, 0.0]])
    assert open_tokens(mask, words)[0].tolist() == [True, True, True, False, False, False, False]
    assert open_tokens(mask, words[:, :0])[0].tolist() == [True, True, False, False, False, True, False]


def test_hidden_texts_keep_their_special_tokens() -> None:
    model, reads = trained_bert().model, coded(5, 8)
    ids = evaluation_batch(reads, np.arange(5), 0).input_ids
    special = ((ids == 2) | (ids == 3)).float()
    with torch.no_grad():
        logits = model.classify(model.embed(ids), ids, special)
        log_probs = torch.log_softmax(logits, dim=-1)
        expected = 1 + (log_probs.exp() * log_probs).sum(dim=1) / np.log(2)
        found = blank_divergence(model, ids)
        embedded, targets = model.embed(ids), model.top_classes(model(ids))
        hidden, shown = probability_curves(model, embedded, ids, targets, torch.rand(ids.shape))
        blank = model.probabilities(logits).gather(1, targets)
    assert float(found[0]) == pytest.approx(float(expected.max()), abs=1e-5)
    torch.testing.assert_close(hidden[-1], blank, atol=1e-5, rtol=0)
    torch.testing.assert_close(shown[0], blank, atol=1e-5, rtol=0)
    assert float(found[0]) < 0.5
    assert blank_warnings({"label": 0.4}, reads) == []
    assert "0.60 for a wholly masked text, expected at most 0.5" in blank_warnings({"label": 0.6}, reads)[0]


def piece_text(reads: LabelledReads, pieces: Pieces, i: int) -> str:
    start = int(pieces.starts[i])
    return reads.text(int(pieces.rows[i]))[start : start + int(pieces.lengths[i])].decode()


@pytest.mark.parametrize(("kind", "multi"), [("lstm", False), ("readout", True)])
def test_chimeras_of_texts_are_measured_as_by_hand(kind: str, multi: bool) -> None:
    model, reads = trained_bert(multi).model, coded(80, 9, multi)
    groups = choose_chimeras(model, reads, 6)
    scorer = mask_scorer(model, trained(kind, multi))
    for rank, group in enumerate(groups):
        assert group.questions == (1 if multi else 2)
        assert len(group) == 6 * group.questions
        labels = reads.labels[group.asked.rows, rank], reads.labels[group.other.rows, rank]
        assert (labels[0] != labels[1]).all()
        if multi:
            assert (labels[0] == 1).all(), "the half that has the label is asked for"
        batch = group.batches(reads)[0]
        with torch.no_grad():
            scores = scorer(batch, rank, batch.labels[:, rank])
        each = []
        for row in range(len(group)):
            asked, other = (piece_text(reads, pieces, row) for pieces in (group.asked, group.other))
            first = other if group.other_first[row] else asked
            border = len(first) + 1
            pairs = [
                (float(scores[row, a]), float(scores[row, b]))
                for a in range(scores.shape[1])
                for b in range(scores.shape[1])
                if min(batch.starts[row, a], batch.starts[row, b]) >= 0
                and (batch.starts[row, a] >= border) == bool(group.other_first[row])
                and (batch.starts[row, b] >= border) != bool(group.other_first[row])
            ]
            each.append(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))
        measured = measure_chimeras(model, reads, groups, scorer)[rank]
        assert measured["n"] == 6
        assert measured["auc"]["mean"] == pytest.approx(np.mean(each), abs=1e-6)


def test_words_change_places_and_strands_are_left_out() -> None:
    model, reads = trained_bert().model, coded(12, 10)
    found = measure_controls(model, trained("lstm"), ["label"], reads, 0, seed=0)
    assert set(found) == {"shuffled"}
    assert found["shuffled"]["same_call"]["label"] > 0.9, "one word decides, wherever it stands"


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=12))
def test_average_precision_is_the_area_of_steps(tokens: list[tuple[float, bool]]) -> None:
    scores, wanted = np.array([score for score, _ in tokens]), np.array([is_wanted for _, is_wanted in tokens])
    if not wanted.any():
        return
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        kept = scores >= threshold
        now = (kept & wanted).sum() / wanted.sum()
        area += (now - recall) * (kept & wanted).sum() / kept.sum()
        recall = now
    assert average_precision(scores, wanted) == pytest.approx(area)


def test_agreement_with_rationales_of_known_masks() -> None:
    # Tokens of two letters with a space between every two of them: "abcd efgh ..."
    starts = np.array([0, 2, 5, 7, 10, 12])
    assert token_spans(starts, starts + 2, np.array([[0, 4], [6, 8], [9, 10]])) == [(0, 2), (2, 4), (4, 4)]
    assert matched_f1([(0, 2), (4, 5)], [(0, 1), (4, 6)]) == 1.0, "either shares half"
    assert matched_f1([(0, 3), (4, 5)], [(0, 1), (4, 6)]) == 0.5
    assert matched_f1([], [(0, 1)]) == matched_f1([(0, 1)], []) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_rationale_measures_equal_a_plain_recomputation(kind: str) -> None:
    reads = coded(30, 11)
    marked = [[] if i < 4 else spans.tolist() for i, spans in enumerate(reads.rationales)]
    found, batch = explained(kind, reads)
    agreement = RationaleAgreement([np.array(spans, np.int64).reshape(-1, 2) for spans in marked], seed=0)
    mask = found.mask()
    agreement.add(np.arange(30), batch, found, mask)
    measured = agreement.summary()
    assert (measured["n_texts"], measured["n_without"]) == (26, 4)
    wanted = inside_of(batch, marked)
    f1s, shares = [], []
    for row in range(4, 30):
        tokens = found.content[row]
        kept, right = mask[row][tokens] >= 0.5, wanted[row][tokens]
        hits = int((kept & right).sum())
        precision, recall = hits / max(int(kept.sum()), 1), hits / int(right.sum())
        f1s.append(2 * precision * recall / (precision + recall) if hits else 0.0)
        shares.append(float(right.float().mean()))
    ours = measured["explainer"]
    assert ours["token_f1"]["mean"] == pytest.approx(np.mean(f1s), abs=1e-4)
    assert measured["rationale_share"] == pytest.approx(np.mean(shares), abs=1e-4)
    for name, values in ours.items():
        assert values["low"] <= values["mean"] <= values["high"]
        assert values["mean"] > measured["random"][name]["mean"] + 0.2
    assert ours["auprc"]["mean"] > 0.9


def test_evaluation_of_several_labels(tmp_path: Path) -> None:
    model, reads = trained_bert(multi=True), coded(20, 12, multi=True)
    config = EvaluationConfig(faithfulness_reads=6, chimeras=2, examples=1)
    found = evaluate(model.model, trained("lstm", True), model.ranks, reads, config)
    assert set(found["balanced_accuracy"]) == set(MULTI)
    assert (found["input"], found["window_tokens"]) == ("text", 46)
    assert all(by_row["plain"] > 0.9 for by_row in found["balanced_accuracy"].values())
    assert "reverse_complement" not in found
    assert found["rationales"]["n_texts"] + found["rationales"]["n_without"] == 20


def test_a_table_of_texts_through_training_and_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_texts(120, 13)
    lines = [
        {"text": text, "mood": LABELS[label[0]], "why": spans, "part": ("train", "validation", "test")[i % 3]}
        for i, (text, label, spans) in enumerate(zip(made.texts, made.labels.tolist(), made.spans, strict=True))
    ]
    source, data = tmp_path / "texts.jsonl", tmp_path / "texts.parquet"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = "--input text --text-column text --label-columns mood --rationale-column why --split part"
    assert main(["train", "prepare", str(source), "-o", str(data), *columns.split()]) == 0
    assert pq.read_schema(data).names == ["header", "sequence", "split", "label", "rationale"]
    model, explainer = str(trained_bert().folder), tmp_path / "explainer"
    words = ["train", "explainer", str(data), "--explanandum", model, "-o", str(explainer), "--window", "30"]
    fixed = "--steps 4 --evaluate-every 2 --threads 1 --batch-reads 8 --kind readout --validation-reads 10"
    assert main([*words, *fixed.split()]) == 0
    made_as = json.loads((explainer / "wyr.json").read_text())["training"]
    assert (made_as["window_tokens"], made_as["kind"]) == (30, "readout")
    capsys.readouterr()
    folder = tmp_path / "evaluation"
    words = ["evaluate", str(data), "--explanandum", model, "--explainer", str(explainer), "-o", str(folder), "-q"]
    assert main([*words, "--faithfulness-reads", "6", "--chimeras", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_reads"], found["input"], found["window_tokens"]) == (40, "text", 46)
    assert found["rationales"]["n_texts"] == 40
    page = (folder / "evaluation.md").read_text()
    assert "40 texts of the test part (40 with a label), first 46 tokens of each." in page
    assert "## Agreement with people" in page
    assert "words shuffled, plain" in page
    assert "other strand" not in page
    example = json.loads((folder / "evaluation.json").read_text())["figure_data"]["examples"][0]
    assert "".join(example["tokens"]) in {text.replace(" ", "") for text in made.texts}
    assert (folder / "figures" / "figure_5_read_1.png").exists()


CASES = [
    ("--window 47", "--window: got 47 tokens, expected at most 46, what the classifier takes"),
    ("--config {in}/bp.toml", "window_bp: got it for a classifier whose tokens are no 6-mers, expected window_tokens"),
    ("--config {in}/many.toml", "window_tokens: got 99 tokens, expected at most 46"),
]


@pytest.mark.parametrize(("options", "words"), CASES)
def test_windows_that_cannot_be_meant(
    options: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bp.toml").write_text("window_bp = 300\n")
    (tmp_path / "many.toml").write_text("window_tokens = 99\n")
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"ba {i}", "label": "good"}) + "\n" for i in range(9))
    )
    data, model = str(tmp_path / "a.parquet"), str(trained_bert().folder)
    assert main(["train", "prepare", str(tmp_path / "a.jsonl"), "--input", "text", "-o", data]) == 0
    command = ["train", "explainer", data, "--explanandum", model, "-o", str(tmp_path / "new")]
    assert main([*command, *options.replace("{in}", str(tmp_path)).split()]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_table_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("sequence,label\nACGT,good\n")
    data = str(tmp_path / "a.parquet")
    assert main(["train", "prepare", str(tmp_path / "a.csv"), "--ranks", "label", "-o", data]) == 0
    model = str(trained_bert().folder)
    assert main(["train", "explainer", data, "--explanandum", model, "-o", str(tmp_path / "new")]) == 1
    assert "a.parquet: got a table of reads, expected text, which the classifier takes" in capsys.readouterr().err
