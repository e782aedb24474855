"""The benchmark of text explanations: the rules of AttnLRP, what is erased, and where a half is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from benchmarks.quality.text_lrp import _attention, margin, relevance, with_rules
from benchmarks.quality.text_measures import (
    Chimera,
    Classifier,
    Floats,
    best,
    best_segments,
    faithfulness,
    position_auc,
)

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "dull", "film", "with", "one", "good", "scene")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Return a BERT of two layers with random weights, read back from a folder."""
    folder: Path = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(WORDS), **sizes, max_position_embeddings=32, initializer_range=0.5, num_labels=2)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return Classifier(folder)


def test_rules_keep_the_logits(classifier: Classifier) -> None:
    ids = classifier.read("a dull film with one good scene").ids.unsqueeze(0)
    torch.testing.assert_close(with_rules(classifier.model)(input_ids=ids).logits, classifier.model(ids).logits)


@torch.no_grad()
def test_relevance_keeps_its_sum_through_norms_and_activations(classifier: Classifier) -> None:
    ruled = with_rules(classifier.model)
    for name, weights in ruled.named_parameters():
        adds = name.endswith("bias") or "position" in name or "token_type" in name
        if adds or ".value." in name:  # constants take relevance away; so does attention, by half
            weights.zero_()
    ids = classifier.read("a dull film").ids
    expected = margin(ruled(input_ids=ids.unsqueeze(0)).logits[0], 1)
    assert abs(expected) > 0.01
    torch.testing.assert_close(relevance(ruled, ids, 1).sum(), expected)


def test_attention_gives_values_half_of_the_relevance() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    out = _attention(None, query, key, value, None, 0.5)[0]
    seen = torch.randn_like(out)
    given = torch.autograd.grad((out * seen).sum(), (query, key, value))
    query_share, key_share, value_share = ((x * grad).sum() for x, grad in zip((query, key, value), given, strict=True))
    torch.testing.assert_close(value_share, 0.5 * (out * seen).sum())
    torch.testing.assert_close(query_share, key_share)


def test_deleted_tokens_are_as_if_never_written(classifier: Classifier) -> None:
    text = classifier.read("a dull film with one good scene")
    kept = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1, 0]])
    shorter = torch.softmax(classifier.model(classifier.read("a film good").ids.unsqueeze(0)).logits, dim=1)
    torch.testing.assert_close(classifier.deleted(text, kept)[1:], shorter)
    torch.testing.assert_close(classifier.deleted(text, kept)[:1], classifier.hidden(text, torch.ones(1, 7)))


def test_hidden_tokens_leave_their_places(classifier: Classifier) -> None:
    text = classifier.read("a dull film")
    other = classifier.read("a good film")
    kept = torch.tensor([[1.0, 0.0, 1.0]])
    torch.testing.assert_close(classifier.hidden(text, kept), classifier.hidden(other, kept))
    assert not torch.allclose(classifier.hidden(text, kept), classifier.deleted(text, kept))


def test_best_tokens_and_segments() -> None:
    scores = np.array([0.1, 0.9, 0.8, 0.0, 0.7, 0.2])
    assert best(scores, 0.01).nonzero()[0].tolist() == [1]
    assert best(scores, 0.5).nonzero()[0].tolist() == [1, 2, 4]
    assert best_segments(scores, 0.0).nonzero()[0].tolist() == [1, 2]
    assert best_segments(scores, 1.0).nonzero()[0].tolist() == [1, 2, 4]


def test_measures_are_losses_of_the_class(classifier: Classifier) -> None:
    text = classifier.read("a dull film with one good scene")
    scores = np.arange(7.0)
    found = [faithfulness(classifier, text, target, scores) for target in (0, 1)]
    for name, value in found[0].items():
        assert value == pytest.approx(-found[1][name], abs=1e-6)
        assert abs(value) > 1e-4


def test_a_scorer_that_knows_the_half_finds_it(classifier: Classifier) -> None:
    chimera = Chimera("a dull film one good scene", (0, 1), len("a dull film "))
    halves = np.array([0, 0, 0, 1, 1, 1])

    def knows(texts: Sequence[str], classes: Sequence[int]) -> list[Floats]:
        return [(halves == target).astype(float) for target in classes]

    def first(texts: Sequence[str], classes: Sequence[int]) -> list[Floats]:
        return [1.0 - halves for _ in classes]

    assert position_auc(classifier, [chimera], knows) == [1.0]
    assert position_auc(classifier, [chimera], first) == [0.5]
