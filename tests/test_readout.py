"""The readout Explainer: its evidence against the classifier's own logits, its exactness in any batch, its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_models import RANKS, plain_pass, save_toy_checkpoints, toy_explainer, toy_explanandum
from wyr_batch.export.write_bundle import export_bundle
from wyr_batch.train.fit.explainer import new_explainer

from wyr_batch import load
from wyr_batch.errors import ModelError
from wyr_batch.models.checkpoints import load_explainer, load_explanandum, save_explainer
from wyr_batch.models.explainer import check_pair
from wyr_batch.models.lstm import LstmExplainer
from wyr_batch.models.readout import ReadoutExplainer

FIRST = torch.tensor([0, 2, 5])


def toy_readout(pooling: str = "mean", n_layers: int = 2) -> ReadoutExplainer:
    """Return a readout Explainer whose learned part says something too."""
    torch.manual_seed(1)
    explainer = new_explainer(toy_explanandum(pooling, num_layers=n_layers), "readout")
    assert isinstance(explainer, ReadoutExplainer)
    torch.nn.init.normal_(explainer.head.weight, std=0.1)
    return explainer.eval()


def token_ids(lengths: list[int], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    ids = torch.full((len(lengths), max(lengths) + 1), 1)
    ids[:, 0] = 3
    for row, n in zip(ids, lengths, strict=True):
        row[1 : n + 1] = torch.from_numpy(rng.integers(6, 4107, n))
    return ids


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(0, 99))
@example(lengths=[37, 90, 1], seed=75)  # a call that leaves 2e-11 to all other classes
@torch.no_grad()
def test_mean_evidence_of_a_mean_pooled_read_is_the_margin_of_its_logits(lengths: list[int], seed: int) -> None:
    model = toy_explanandum()
    plain = plain_pass(model, token_ids(lengths, seed))
    targets = model.top_classes(plain.logits)
    evidence = model.evidence(plain.hidden, plain.logits, targets)
    mean = (evidence * plain.valid.unsqueeze(1)).sum(dim=2) / plain.valid.sum(dim=1, keepdim=True)
    for r, classes in enumerate(model.slices):
        logits = plain.logits[:, classes] - model.classifiers[r].bias
        own = torch.nn.functional.one_hot(targets[:, r], logits.shape[1]).bool()
        others = torch.softmax(plain.logits[:, classes].masked_fill(own, -torch.inf), dim=1)
        rival = 0.5 * others + 0.5 / logits.shape[1]
        torch.testing.assert_close(mean[:, r], logits[own] - (rival * logits).sum(dim=1), atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=2, max_size=4), st.integers(0, 99), st.sampled_from(["mean", "cls"]))
@torch.no_grad()
def test_a_read_alone_has_the_mask_it_has_in_a_batch(lengths: list[int], seed: int, pooling: str) -> None:
    model, explainer = toy_explanandum(pooling), toy_readout(pooling)
    ids = token_ids(lengths, seed)
    classes = torch.tensor([[0, 1, 2]] * len(ids)) + FIRST
    together = torch.sigmoid(explainer.class_logits(model, plain_pass(model, ids), classes))
    for row, n in enumerate(lengths):
        alone = plain_pass(model, ids[row : row + 1, : n + 1])
        mask = torch.sigmoid(explainer.class_logits(model, alone, classes[row : row + 1]))[0]
        assert (mask - together[row, :, : n + 1]).abs().max() < 1e-5


@torch.no_grad()
def test_classes_asked_for_together_have_the_masks_of_each_alone() -> None:
    model, explainer = toy_explanandum(), toy_readout()
    plain = plain_pass(model, token_ids([50, 20], 0))
    one, other = torch.tensor([[0, 1, 2]] * 2) + FIRST, torch.tensor([[1, 0, 4]] * 2) + FIRST
    both = explainer.class_logits(model, plain, torch.cat((one, other), dim=1))
    for classes, part in ((one, both[:, :3]), (other, both[:, 3:])):
        torch.testing.assert_close(explainer.class_logits(model, plain, classes), part, atol=1e-5, rtol=1e-5)
    assert (both[:, :3] - both[:, 3:]).abs().max() > 0.1


@torch.no_grad()
def test_without_evidence_to_start_from_masks_start_at_a_half() -> None:
    """A head that reads `<cls>` alone was never taught what the other tokens' hidden states mean along its rows."""
    for pooling, starts_at_half in (("cls", True), ("mean", False)):
        model = toy_explanandum(pooling)
        untrained = new_explainer(model, "readout").eval()
        masks = torch.sigmoid(untrained.class_logits(model, plain_pass(model, token_ids([40], 0)), FIRST[None]))
        assert bool((masks == 0.5).all()) == starts_at_half


def test_checkpoint_round_trip_and_what_is_refused(tmp_path: Path) -> None:
    explainer = toy_readout()
    save_explainer(explainer, tmp_path, {})
    again = load_explainer(tmp_path)
    assert isinstance(again, ReadoutExplainer)
    assert again.config == explainer.config
    for name, value in explainer.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    assert isinstance(load_explainer(save_toy_checkpoints(tmp_path / "lstm")[1]), LstmExplainer)
    check_pair(toy_explanandum(), again)
    with pytest.raises(ModelError, match=r"^e: got num_classes 12, expected 10, that of the Explanandum"):
        check_pair(toy_explanandum(), toy_explainer(num_classes=12), "e")
    config = tmp_path / "config.json"
    text = config.read_text()
    for old, new, words in (
        ('"readout"', '"other"', 'kind: got "other", expected one of lstm, readout'),
        ('"kernel_tokens": 9', '"kernel_tokens": 8', "kernel_tokens: got 8, expected an odd number"),
        ('"width"', '"breadth"', "got the field 'breadth'"),
        ('"num_ranks": 3', '"num_ranks": 2', r"tensor gain: got shape \(3,\), expected \(2,\)"),
    ):
        config.write_text(text.replace(old, new))
        with pytest.raises(ModelError, match=words):
            load_explainer(tmp_path)


def test_every_runtime_gives_what_torch_gives_and_long_reads_are_stitched(tmp_path: Path) -> None:
    models = {"explanandum": toy_explanandum(num_layers=1), "explainer": toy_readout(n_layers=1)}
    places = save_toy_checkpoints(tmp_path, **models)
    bundle = export_bundle(*places, tmp_path / "toy", name="toy", window_bp=120, max_tokens=40, threads=1)
    assert {name for name, proof in bundle.proofs.items() if proof["verdict"] == "passed"} == {"model.onnx"}
    assert bundle.runtime_proofs["openvino float32"]["verdict"] == "passed"
    reads = ["".join(np.random.default_rng(i).choice(list("ACGT"), 100 + 70 * i)) for i in range(4)]
    found = {}
    for runtime in ("onnx", "openvino", "torch"):
        with load(bundle.folder, device="cpu", runtime=runtime, threads=1) as masker:
            found[runtime] = masker.predict(reads)
    assert [read.status for read in found["torch"]] == ["ok", "windowed", "windowed", "windowed"]
    for runtime in ("onnx", "openvino"):
        for mine, wanted in zip(found[runtime], found["torch"], strict=True):
            assert mine.labels == wanted.labels
            np.testing.assert_allclose(mine.rank_masks, wanted.rank_masks, atol=1e-5)
    assert found["torch"][1].rank_masks.std() > 0.05
    assert load_explanandum(places[0])[1] == list(RANKS)
