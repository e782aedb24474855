"""Checkpoints are checked as they are loaded: what is wrong is a message that names file and field, never a crash."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from change_json import MISSING, change
from toy_models import save_toy_checkpoints

from wyr_batch.errors import ModelError
from wyr_batch.models.checkpoints import load_encoder, load_explainer, load_explanandum, read_ranks
from wyr_batch.models.encoder import EncoderConfig

EXPLANANDUM, EXPLAINER = "explanandum/base_model/config.json", "explainer/config.json"


LABELS = "explanandum/data_processor/labels.json"


@pytest.mark.parametrize(
    ("file", "place", "value", "words"),
    [
        (LABELS, (), [], "labels.json: got [], expected an object"),
        (LABELS, ("ranks",), "genus", 'labels.json, ranks: got "genus", expected a list of objects'),
        (LABELS, ("ranks", 0, "labels", 0), None, r"ranks\[0\].labels: got \[null, "),
        (LABELS, ("ranks", 0, "labels", 0), "Viruses", "explanandum: got the label 'Viruses' .* twice"),
        ("explanandum/wyr.json", (), 3, "wyr.json: got 3, expected an object"),
        ("explanandum/wyr.json", ("pooling",), "max", 'wyr.json, pooling: got "max", expected one of mean, cls'),
        (EXPLANANDUM, (), [], "config.json: got [], expected an object"),
        (EXPLANANDUM, ("hidden_size",), "32", 'config.json, hidden_size: got "32", expected a whole number from 1'),
        (EXPLANANDUM, ("num_attention_heads",), 0, "num_attention_heads: got 0, expected"),
        (EXPLANANDUM, ("num_attention_heads",), 32, "got hidden_size 32 with 32 heads, expected an even number"),
        (EXPLANANDUM, ("num_hidden_layers",), 10**9, "num_hidden_layers: got 1000000000, expected .* to 1000"),
        (EXPLANANDUM, ("pad_token_id",), 4107, "pad_token_id: got 4107, expected"),
        (EXPLANANDUM, ("layer_norm_eps",), None, "layer_norm_eps: got null, expected a number"),
        (EXPLAINER, (), None, "config.json: got null, expected an object"),
        (EXPLAINER, ("num_classes",), MISSING, "config.json, num_classes: got nothing, expected a whole number"),
        (EXPLAINER, ("num_layers",), 1.5, "config.json, num_layers: got 1.5, expected a whole number"),
        (EXPLAINER, ("cell_states",), 1, "cell_states: got 1, expected true or false"),
        (EXPLAINER, ("kind",), "gru", 'kind: got "gru", expected one of lstm, readout'),
        (EXPLAINER, ("n_heads",), 2, "got the field 'n_heads', expected vocab_size, "),
    ],
)
def test_what_is_wrong_in_a_checkpoint_is_named(
    file: str, place: tuple[str | int, ...], value: Any, words: str, tmp_path: Path
) -> None:
    words = words.replace("[]", r"\[\]")
    explanandum, explainer = save_toy_checkpoints(tmp_path)
    change(tmp_path / file, place, value)
    with pytest.raises(ModelError, match=words):
        load_explainer(explainer) if file == EXPLAINER else load_explanandum(explanandum)


def test_labels_that_are_numbers_are_texts(tmp_path: Path) -> None:
    explanandum, _ = save_toy_checkpoints(tmp_path)
    change(tmp_path / LABELS, ("ranks", 0, "labels"), [2, "10239"])
    assert read_ranks(explanandum)[0].labels == ("2", "10239")


PICKLES = (
    *(None, 3, [], {}, {"encoders": 3}, {"encoders": ["a"], "labels": []}, [[1], ["kingdom"]], {"encoders": [[{}]]}),
    *({"encoders": {"kingdom": labels}} for labels in ("ab", np.zeros((2, 2)), [], ["a", "a"])),
    {"encoders": {"genus": ["a", "b"]}},
)


@pytest.mark.parametrize("content", PICKLES, ids=str)
def test_pickles_of_another_shape_are_model_errors(content: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data_processor"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"labels": ["kingdom"]}')
    (folder / "data_processor.pkl").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(ModelError, match=f"{tmp_path}.*: got .*, expected "):
        read_ranks(tmp_path)
    (folder / "metadata.json").write_text('{"labels": "kingdom"}')
    with pytest.raises(ModelError, match=r'metadata.json, labels: got "kingdom", expected a list of texts'):
        read_ranks(tmp_path)


def test_shards_stay_in_the_folder_of_their_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(EncoderConfig(hidden_size=8, num_attention_heads=2).to_json())
    index = tmp_path / "model.safetensors.index.json"
    for content, words in (
        ({"weight_map": {"esm.x": "../shard.safetensors"}}, r"weight_map.esm.x: got .*Do not trust"),
        ({"weight_map": {"esm.x": 1}}, r"weight_map.esm.x: got 1, expected text"),
        ({"weight_map": []}, r"weight_map: got \[\], expected an object"),
        ({}, r"weight_map: got nothing, expected an object"),
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=words):
            load_encoder(str(tmp_path))
