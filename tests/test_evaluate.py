"""Measures of an explanation against plain loops, hand-made masks whose answers are known, and a whole evaluation."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import RANKS, save_toy_checkpoints, toy_explainer, toy_explanandum
from wyr_batch.train.data.batches import evaluation_batch
from wyr_batch.train.data.labelled import LabelledReads
from wyr_batch.train.data.prepare import Counts, SplitRule, prepare
from wyr_batch.train.data.sources import Piece
from wyr_batch.train.measure.chunks import classify_chunks
from wyr_batch.train.measure.evaluate import ROWS, EvaluationConfig, blank_divergence, evaluate
from wyr_batch.train.measure.explained import explain
from wyr_batch.train.measure.faithfulness import SHARES, best_tokens, measures, permuted, probability_curves
from wyr_batch.train.measure.maskstats import MaskStatistics, gini, segment_lengths
from wyr_batch.train.places import check_evaluation_folder

from wyr_batch.checks.outputs import Source
from wyr_batch.cli import main
from wyr_batch.cli.evaluate import json_text
from wyr_batch.errors import OutputError, UsageError


def some_reads(n: int = 12) -> LabelledReads:
    rng = np.random.default_rng(3)
    lengths = rng.integers(30, 400, n)
    bases = rng.choice(np.frombuffer(b"ACGT", np.uint8), lengths.sum())
    labels = np.stack([rng.integers(-1 if r else 0, len(rank.labels), n) for r, rank in enumerate(RANKS)], axis=1)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return LabelledReads(bases, offsets, labels, np.ones(n, bool), tuple(f"r{i}" for i in range(n)))


def token_rows(lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and random masks of reads with so many tokens besides `<cls>`."""
    rng = np.random.default_rng(seed)
    ids = torch.full((len(lengths), max(lengths) + 1), 1)
    ids[:, 0] = 3
    for row, n in zip(ids, lengths, strict=True):
        row[1 : n + 1] = torch.from_numpy(rng.integers(6, 4102, n))
    return ids, torch.from_numpy(rng.random(ids.shape)).float() * (ids != 1)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 99))
def test_chunks_equal_reads_cut_by_hand(lengths: list[int], seed: int) -> None:
    model = toy_explanandum()
    ids, mask = token_rows(lengths, seed)
    with torch.no_grad():
        means, counts = classify_chunks(model, ids, mask, ids != 1)
        for i, n in enumerate(lengths):
            pieces: dict[int, list[list[int]]] = {0: [], 1: []}
            previous = None
            for t in range(1, n + 1):
                kind = int(mask[i, t] >= 0.5)
                if kind != previous:
                    pieces[kind].append([3])
                pieces[kind][-1].append(int(ids[i, t]))
                previous = kind
            for kind, chunks in pieces.items():
                assert counts[i, kind] == len(chunks)
                if chunks:
                    each = [model.probabilities(model(torch.tensor([chunk])))[0] for chunk in chunks]
                    torch.testing.assert_close(means[i, kind], torch.stack(each).mean(dim=0), atol=1e-5, rtol=0)


def test_gini_and_segments_of_known_masks() -> None:
    masks = np.array([[1.0, 1, 1, 1], [0, 0, 0, 1], [0.9, 0.1, 0.6, 0.7], [0, 0, 0, 0]])
    valid = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], bool)
    assert gini(masks * valid, valid) == pytest.approx([0.0, 0.75, 5 / 18.4, 0.0], abs=1e-9)
    counts, lengths = segment_lengths(masks * valid, valid)
    assert counts.tolist() == [1, 1, 2, 0]
    assert lengths.tolist() == [3, 1, 1, 2]
    statistics = MaskStatistics()
    statistics.add(masks[:1, :3], valid[:1, :3])
    statistics.add(masks[1:], valid[1:])
    assert statistics.summary()["mask_mean"] == pytest.approx((3 + 1 + 2.3) / 15, abs=1e-4)
    position = statistics.figures()["mask_by_position"]
    assert (position["n_reads"], position["max"]) == ([4, 4, 4, 3], [1.0, 1.0, 1.0, 1.0])
    assert position["mean"] == pytest.approx([1.9 / 4, 1.1 / 4, 1.6 / 4, 1.7 / 3], abs=1e-4)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.sampled_from(SHARES), st.integers(0, 99))
def test_best_tokens_are_the_highest_scores(lengths: list[int], share: float, seed: int) -> None:
    ids, scores = token_rows(lengths, seed)
    best = best_tokens(scores, toy_explanandum().content(ids), share).numpy().astype(bool)
    for i, n in enumerate(lengths):
        wanted = int(np.ceil(share * n - 1e-6))
        own = scores[i, 1 : n + 1].numpy()
        assert best[i].sum() == wanted
        assert set(np.flatnonzero(best[i, 1 : n + 1])) == set(np.argsort(-own, kind="stable")[:wanted])


def test_random_mask_has_the_same_values() -> None:
    ids, mask = token_rows([9, 3], 1)
    chance = permuted(mask, toy_explanandum().content(ids), torch.Generator().manual_seed(0))
    assert not torch.equal(chance, mask)
    torch.testing.assert_close(chance.sort(dim=1).values, mask.sort(dim=1).values)
    assert torch.equal(chance[:, 0], mask[:, 0])
    assert not chance[ids == 1].any()


def test_faithfulness_tells_true_evidence_from_its_opposite() -> None:
    model = toy_explanandum()
    ids, _ = token_rows([60] * 8, 5)
    valid = ids != 1
    with torch.no_grad():
        embedded = model.embed(ids)
        targets = model.top_classes(model.classify(embedded, ids))
        # The genus' own evidence: what hiding a token alone takes from its class.
        scores = torch.zeros(ids.shape)
        rank = model.slices[2]
        plain = torch.log_softmax(model.classify(embedded, ids)[:, rank], -1).gather(1, targets[:, 2:])
        for t in range(1, 61):
            kept = valid.float()
            kept[:, t] = 0.0
            logits = model.classify(embedded, ids, kept)[:, rank]
            scores[:, t] = (plain - torch.log_softmax(logits, -1).gather(1, targets[:, 2:]))[:, 0]
        found = {}
        for name, order in (("true", scores), ("opposite", -scores)):
            hidden, shown = probability_curves(model, embedded, ids, targets, order)
            assert torch.allclose(hidden[0], shown[-1], atol=1e-5), "nothing hidden is everything shown"
            assert torch.allclose(hidden[-1], shown[0], atol=1e-5)
            curves = (hidden.double().numpy(), shown.double().numpy())
            found[name] = {measure: values[:, 2].mean() for measure, values in measures(*curves).items()}
    assert found["true"]["comprehensiveness"] > found["opposite"]["comprehensiveness"] + 0.1
    assert found["true"]["sufficiency"] < found["opposite"]["sufficiency"] - 0.1
    assert found["true"]["deletion_auc"] < found["opposite"]["deletion_auc"]
    assert found["true"]["insertion_auc"] > found["opposite"]["insertion_auc"]


def test_blank_divergence_is_of_the_biases() -> None:
    model = toy_explanandum()
    ids, _ = token_rows([5], 0)
    with torch.no_grad():
        bias = model.classifiers[2].bias
        probs = torch.softmax(bias, 0)
        expected = 1 + float((probs * probs.log()).sum()) / np.log(len(bias))
        assert float(blank_divergence(model, ids)[2]) == pytest.approx(expected, abs=1e-5)


def test_evaluation_of_all_rows(tmp_path: Path) -> None:
    reads = some_reads()
    config = EvaluationConfig(window_bp=300, faithfulness_reads=6, examples=1)
    other = toy_explainer(seed=9)
    result = evaluate(toy_explanandum(), toy_explainer(), RANKS, reads, config, other)
    assert list(result["balanced_accuracy"]["genus"]) == list(ROWS)
    batch = evaluation_batch(reads, np.arange(len(reads)), 300)
    with torch.no_grad():
        found = explain(toy_explanandum(), toy_explainer(), batch)
    tokens = found.valid[:, 1:]
    assert result["mask_mean"] == pytest.approx(float(found.mask()[:, 1:][tokens].mean()), abs=1e-4)
    unshifted = next(point for point in result["tradeoff"] if point["logit_shift"] == 0)
    means = [point["mask_mean"] for point in result["tradeoff"]]
    assert means == sorted(means)
    assert unshifted["masks"].keys() == {"superkingdom", "phylum", "genus"}
    assert abs(result["sanity"]["mask_correlation"]) < 0.5, "another Explainer, other masks"
    same = evaluate(toy_explanandum(), toy_explainer(), RANKS, reads, config, toy_explainer())
    assert same["sanity"]["mask_correlation"] == pytest.approx(1, abs=1e-4)
    by_label = evaluate(
        toy_explanandum(), toy_explainer(), RANKS, reads, EvaluationConfig("labels", 300, faithfulness_reads=0)
    )
    assert by_label["explained"] == "labels"
    assert by_label["mask_mean"] != result["mask_mean"]
    assert "faithfulness" not in by_label


def test_command_writes_json_tables_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explanandum, explainer = save_toy_checkpoints(tmp_path)
    reads = some_reads(30)
    ends = reads.offsets.tolist()
    raw = reads.bases.tobytes().decode()
    piece = Piece(
        list(reads.headers),
        [raw[a:b] for a, b in itertools.pairwise(ends)],
        labels=[tuple(rank.labels[max(c, 0)] for rank, c in zip(RANKS, row, strict=True)) for row in reads.labels],
        splits=["test"] * len(reads),
    )
    data = tmp_path / "data.parquet"
    prepare([piece], [rank.name for rank in RANKS], data, SplitRule("column"), Counts())
    words = ["evaluate", "--explanandum", str(explanandum), "--explainer", str(explainer), str(data)]
    folder = tmp_path / "evaluation"
    assert main([*words, "-o", str(folder), "--faithfulness-reads", "5", "-q"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((folder / "evaluation.json").read_text())
    assert {**printed, "figure_data": written["figure_data"]} == written
    page = (folder / "evaluation.md").read_text()
    assert "| average relevant chunk |" in page
    assert "| paper: genus |" in page
    drawn = {path.name for path in (folder / "figures").iterdir()}
    for name in ("figure_5_read_1", "figure_6a_mask_histogram", "figure_6b_mask_by_position", "tradeoff"):
        assert {f"{name}.png", f"{name}.svg"} <= drawn
    assert main([*words, "-o", str(folder), "--faithfulness-reads", "0", "--max-reads", "9", "-q"]) == 0
    again = json.loads((folder / "evaluation.json").read_text())
    assert (again["n_reads"], "faithfulness" in again) == (9, False), "its own files are replaced"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("evaluation.json", '{"loss": 1}', "evaluation.json, balanced_accuracy: got nothing, expected an object"),
        ("evaluation.json", "precious", "evaluation.json: got"),
        ("evaluation.md", "precious", "evaluation.md: got something that no evaluation made"),
        ("figures/mine.png", "precious", "figures: got something that no evaluation made"),
    ],
)
def test_evaluation_replaces_its_own_files_only(name: str, content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(OutputError, match=words):
        check_evaluation_folder(tmp_path, [])
    assert path.read_text() == content
    check_evaluation_folder(tmp_path / "new", [])


def test_evaluation_writes_into_no_device_or_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "evaluation.md")
    with pytest.raises(OutputError, match=r"evaluation\.md: got a pipe"):
        check_evaluation_folder(tmp_path, [])
    with pytest.raises(UsageError, match="got a path in --explainer"):
        check_evaluation_folder(tmp_path / "explainer", [Source("--explainer", tmp_path)])


def test_what_could_not_be_measured_is_null_in_json() -> None:
    assert json.loads(json_text({"a": [float("nan"), 0.5], "b": {"c": float("inf")}}, 1)) == {
        "a": [None, 0.5],
        "b": {"c": None},
    }


@pytest.mark.parametrize("command", ["evaluate", "train explainer"])
def test_a_package_that_is_missing_is_said_by_the_command_that_needs_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*command.split(), "--help"])  # loads the command

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("wyr_batch.cli.train.common.importlib", SimpleNamespace(import_module=missing))
    table = tmp_path / "table.parquet"
    table.write_bytes(b"")
    other = ["--explainer", str(tmp_path)] if command == "evaluate" else ["-o", str(tmp_path / "new")]
    assert main([*command.split(), str(table), "--explanandum", str(tmp_path), *other]) == 2
    assert f"wyr-batch {command}: got no package 'torch'" in capsys.readouterr().err
