"""Classifiers' folders: loaded strictly, written so that they load again, refused by name; their tokenizers."""

from __future__ import annotations

import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from change_json import MISSING, change
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from toy_families import RANKS, rows, toy

from wyr_batch.errors import ModelError
from wyr_batch.models.checkpoints import load_explanandum, save_explanandum, tokenizer_folder
from wyr_batch.models.encoder import EncoderConfig
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.families.quiet import quiet_transformers
from wyr_batch.models.families.tokenizer import describe_tokenizer

CONFIG, BASE = "config.json", "base_model/config.json"
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
PUBLISHED: dict[str, Any] = {
    "model_type": "esm",
    "architectures": ["EsmForMaskedLM"],
    "auto_map": {"AutoModelForMaskedLM": "modeling_esm.EsmForMaskedLM"},
    "vocab_size": 4107,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "max_position_embeddings": 2050,
    "position_embedding_type": "rotary",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "mask_token_id": 2,
    "add_bias_fnn": False,
    "emb_layer_norm_before": False,
    "token_dropout": False,
    "esmfold_config": None,
}
MULTI = {"problem_type": "multi_label_classification"}


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy(name).folder, tmp_path / name))


@pytest.mark.parametrize("name", ["bert-multi", "deberta-v3", "modernbert-mean", "esm", "dnabert", "llama", "mistral"])
def test_what_is_saved_loads_again(name: str, tmp_path: Path) -> None:
    found = toy(name)
    save_explanandum(found.model, found.ranks, tmp_path / "again", {"recipe": "toy"})
    model, ranks = load_explanandum(tmp_path / "again")
    assert ranks == found.ranks
    assert json.loads((tmp_path / "again" / "wyr.json").read_text())["recipe"] == "toy"
    ids = rows(found.model, (9, 20))
    with torch.no_grad():
        assert torch.equal(model(ids), found.model(ids))
    again = describe_tokenizer(tokenizer_folder(tmp_path / "again"))
    assert (again.json, again.special_ids) == (found.model.tokenizer.json, found.model.tokenizer.special_ids)
    save_explanandum(found.model, found.ranks, tmp_path / "half", {}, half=True)
    halved, _ = load_explanandum(tmp_path / "half")
    with torch.no_grad():
        torch.testing.assert_close(halved(ids), found.model(ids), atol=0.05, rtol=0)


def test_transformers_loads_what_is_saved(tmp_path: Path) -> None:
    found = toy("bert")
    save_explanandum(found.model, found.ranks, tmp_path, {})
    with quiet_transformers():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    given_ = tokenizer("w6 w7 nothing", "w8", return_tensors="pt")
    ids = given_["input_ids"]
    assert torch.equal(found.model.token_types(ids), given_["token_type_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**given_).logits, found.model(ids), atol=2e-5, rtol=0)


def test_ranks_are_named_after_labels(tmp_path: Path) -> None:
    assert [(rank.name, rank.labels) for rank in toy("bert").ranks] == [("label", ("negative", "neutral", "positive"))]
    assert [rank.name for rank in toy("bert-multi").ranks] == ["negative", "neutral", "positive"]
    assert {rank.labels for rank in toy("bert-multi").ranks} == {("no", "yes")}
    assert toy("dnabert").ranks == list(RANKS)
    folder = copied("bert", tmp_path)
    change(folder / CONFIG, ("id2label",), {"0": "spam", "1": "", "2": "spam"})
    assert load_explanandum(folder)[1][0].labels == ("spam (0)", "label 1", "spam (2)")
    change(folder / CONFIG, ("problem_type",), MULTI["problem_type"])
    change(folder / CONFIG, ("id2label",), {"0": "mask", "1": "toxic", "2": "toxic_masked"})
    names = [rank.name for rank in load_explanandum(folder)[1]]
    assert names == ["mask (label)", "toxic", "toxic_masked (label)"]


@pytest.mark.parametrize(
    ("name", "file", "place", "value", "words"),
    [
        (
            "bert",
            CONFIG,
            ("auto_map",),
            {"AutoModel": "code.Model"},
            "auto_map, code of the model's own.*never executed",
        ),
        ("bert", CONFIG, ("model_type",), "t5", "model_type 't5', expected one of bert, roberta"),
        ("bert", CONFIG, ("model_type",), MISSING, "model_type: got nothing"),
        ("bert", CONFIG, ("architectures",), ["BertModel"], "BertModel, expected BertForSequenceClassification"),
        ("bert", CONFIG, ("id2label",), {"0": "score"}, "1 label, .*a regression"),
        ("bert", CONFIG, ("problem_type",), "regression", "'regression', expected two classes.*a regression"),
        ("bert", CONFIG, ("position_embedding_type",), "relative_key", "position_embedding_type 'relative_key'"),
        ("bert", CONFIG, ("num_hidden_layers",), 10**9, "num_hidden_layers: got 1000000000"),
        ("bert", CONFIG, ("num_attention_heads",), 5, "expected a configuration that transformers takes"),
        ("bert", CONFIG, ("hidden_size",), 64, r"tensor .*: got shape \(.*32.*\), expected \(.*64.*\)"),
        ("bert", CONFIG, ("num_hidden_layers",), 3, "layer.2.*: got nothing, expected shape"),
        ("bert", CONFIG, ("num_hidden_layers",), 1, "layer.1.*: got a tensor of that name, expected none"),
        ("bert", CONFIG, ("vocab_size",), 2, "tokenizer with the special token 3, expected one below 2"),
        ("esm", CONFIG, ("position_embedding_type",), "absolute", "position_embedding_type 'absolute'"),
        ("mistral", BASE, ("model_type",), "hyenadna", "HyenaDNA model.*take no mask of padding"),
        ("mistral", BASE, ("model_type",), "gpt2", "model_type 'gpt2', expected one of esm, bert, llama, mistral"),
        ("llama", BASE, ("num_attention_heads",), 3, "hidden size.*not a multiple of the number of attention heads"),
        ("llama", BASE, ("rope_parameters",), DYNAMIC, "rotary positions of the type 'dynamic'"),
        ("dnabert", BASE, ("num_attention_heads",), 5, "got hidden_size 36 with 5 heads"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    name: str, file: str, place: tuple[str, ...], value: Any, words: str, tmp_path: Path
) -> None:
    folder = copied(name, tmp_path)
    change(folder / file, place, value)
    with pytest.raises(ModelError, match=words):
        load_explanandum(folder)


def test_tensors_of_other_uses_and_older_names_are_known(tmp_path: Path) -> None:
    """What older versions of transformers wrote: LayerNorm.gamma, ids of positions, frequencies in every layer."""
    for name, more in (
        ("bert", {"bert.embeddings.position_ids": torch.arange(64)}),
        ("esm", {"esm.embeddings.position_embeddings.weight": torch.ones(3)}),
        ("mistral", {}),
    ):
        folder = copied(name, tmp_path)
        file = next(folder.rglob("model.safetensors"))
        tensors = {key.replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in load_file(file).items()}
        if name == "mistral":
            tensors = load_file(file)
            assert "base_model.lm_head.weight" in tensors
            del tensors["base_model.lm_head.weight"]
        if name == "esm":
            inside = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
            kept = [value for key, value in tensors.items() if key.endswith("inv_freq")]
            tensors = {key: value for key, value in tensors.items() if not key.endswith("inv_freq")}
            tensors |= {inside.format(layer): kept[0].clone() for layer in (0, 1)}
        save_file(tensors | more, file)
        ids = rows(toy(name).model, (9, 20))
        with torch.no_grad():
            assert torch.equal(load_explanandum(folder)[0](ids), toy(name).model(ids))


def test_pickled_weights_and_missing_tokenizers_are_refused(tmp_path: Path) -> None:
    folder = copied("bert", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no model.safetensors, expected it beside config.json"):
        load_explanandum(folder)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"no tokenizer, expected tokenizer.json"):
        load_explanandum(folder)


def test_padding_needs_a_token_of_its_own(tmp_path: Path) -> None:
    folder = copied("bert", tmp_path)
    change(folder / "tokenizer_config.json", ("pad_token",), "[UNK]")
    with pytest.raises(ModelError, match="token 1 for padding, which means something else"):
        load_explanandum(folder)


def test_a_tokenizer_is_described_as_bundles_have_it() -> None:
    described = toy("roberta").model.vocabulary.to_json()
    expected = {"file": "tokenizer.json", "prefix": [0], "suffix": [2], "between": [2, 2], "pad_id": 1}
    assert described == {**expected, "vocab_size": 60}
    assert toy("mistral").model.vocabulary.between is None


@cache
def proteins() -> Any:
    with quiet_transformers():
        return transformers.AutoTokenizer.from_pretrained(toy("esm").folder)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"LAGVSEJjx*. \t", "<mask>", "<cls>", "<", "cls>", "<null_1>", "ß"]), min_size=1, max_size=30
    ).map("".join)
)
def test_the_tokenizer_of_proteins_is_that_of_transformers(text: str) -> None:
    theirs = proteins()
    ours = Tokenizer.from_str(toy("esm").model.tokenizer.json)
    assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert ours.encode(text, "MK").ids == theirs(text, "MK")["input_ids"]


@pytest.mark.parametrize(("hidden", "inner"), [(512, 2048), (768, 3072), (1024, 4096)])
def test_larger_nucleotide_transformers_load_as_the_smallest_does(hidden: int, inner: int, tmp_path: Path) -> None:
    """The widths of v2 with 100, 250 and 500 million parameters, from the published fields, of one layer."""
    published = dict(PUBLISHED, hidden_size=hidden, intermediate_size=inner)
    (tmp_path / "config.json").write_text(json.dumps(published))
    model = NtExplanandum(EncoderConfig.from_json(tmp_path / "config.json"), [2, 3]).eval()
    folder = tmp_path / "classifier"
    ranks = [RANKS[1], RANKS[0]]
    save_explanandum(model, ranks, folder, {})
    shutil.copy(tmp_path / "config.json", folder / "base_model" / "config.json")
    loaded, found = load_explanandum(folder)
    assert found == ranks
    ids = torch.tensor([[3, *random.Random(0).sample(range(6, 4107), 8)]])
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))
