"""Encoder, Explainer and Explanandum against the published code's outputs and plain twins."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import plain_pass, toy_explanandum

from wyr_batch.errors import ModelError
from wyr_batch.models.checkpoints import load_encoder, load_explanandum, read_ranks, save_explanandum
from wyr_batch.models.encoder import Encoder, EncoderConfig
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.lstm import LstmConfig, LstmExplainer, linear_scan
from wyr_batch.ranks import Rank

DATA = Path(__file__).parent / "data"
TINY = EncoderConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96)


def recipe_weights(encoder: Encoder, seed: int) -> None:
    """Fill an encoder as the outputs in tests/data were made: normal numbers seeded by each tensor's name."""
    for key, tensor in encoder.state_dict().items():
        name = f"esm.{key}"
        if name.endswith("inv_freq"):
            continue
        rng = np.random.RandomState((zlib.crc32(name.encode("ascii")) + seed) % 2**32)
        x = rng.standard_normal(tuple(tensor.shape))
        if "LayerNorm" in name or "layer_norm" in name:
            x = 1 + 0.2 * x if name.endswith("weight") else 0.2 * x
        elif name.endswith("bias"):
            x = 0.2 * x
        elif "embeddings" not in name:
            x = x / np.sqrt(x.shape[-1])
            if ".query." in name or ".key." in name:
                x = x * 1.5
        tensor.copy_(torch.from_numpy(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("name", "config", "seed", "tolerance"),
    [("nt_v2_tiny", TINY, 20240001, 2e-5), ("nt_v2_50m", EncoderConfig(), 50000001, 5e-5)],
)
def test_encoder_equals_the_published_code(name: str, config: EncoderConfig, seed: int, tolerance: float) -> None:
    encoder = Encoder(config)
    recipe_weights(encoder, seed)
    expected = np.load(DATA / f"{name}.npz")
    ids = torch.from_numpy(expected["input_ids"])
    for encoder.explicit_attention in (True, False):
        with torch.inference_mode():
            hidden = encoder(ids)[ids != 1].numpy()
        np.testing.assert_allclose(hidden, expected["hidden"], atol=tolerance, rtol=0)


def toy_explainer(**config: int | bool) -> LstmExplainer:
    torch.manual_seed(5)
    explainer = LstmExplainer(LstmConfig(embedding_dim=12, hidden_size=8, num_classes=7, **config)).eval()  # type: ignore[arg-type]
    for parameter in explainer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return explainer


def step_by_step(explainer: LstmExplainer, ids: Tensor) -> Tensor:
    """One read, one LSTMCell step at a time: [h forward, h backward, c forward, c backward]."""
    x = explainer.embedding(ids)
    for layer in range(explainer.config.num_layers):
        directions = []
        for backward in (False, True):
            cell = nn.LSTMCell(x.shape[1], explainer.config.hidden_size)
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            cell.load_state_dict(dict(zip(names, explainer.weights(layer, backward), strict=True)))
            h = c = torch.zeros(1, explainer.config.hidden_size)
            states = []
            for step in x.flip(0) if backward else x:
                h, c = cell(step[None], (h, c))
                states.append(torch.cat((h, c)))
            both = torch.stack(states[::-1] if backward else states)
            directions.append(both)
        x = torch.cat([d[:, 0] for d in directions], dim=1)
    return torch.cat([*(d[:, 0] for d in directions), *(d[:, 1] for d in directions)], dim=1)


@torch.inference_mode()
def test_explainer_equals_a_step_by_step_loop_in_any_padding() -> None:
    explainer = toy_explainer()
    lengths = [40, 17, 2, 1]
    ids = torch.randint(3, 4107, (4, 45))
    valid = torch.arange(45)[None, :] < torch.tensor(lengths)[:, None]
    ids[~valid] = 1
    features = explainer.features(ids, valid)
    assert features.shape == (4, 45, 4 * 8)
    classes = torch.tensor([[0, 3], [1, 6], [2, 2], [5, 4]])
    chosen = explainer.class_logits(toy_explanandum(), plain_pass(toy_explanandum(), ids), classes)
    every = explainer.logits(ids, valid)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(features[row, :n], step_by_step(explainer, ids[row, :n]), atol=1e-5, rtol=0)
        for r in range(2):
            torch.testing.assert_close(chosen[row, r, :n], every[row, :n, classes[row, r]], atol=1e-5, rtol=0)


def test_default_explainer_has_the_papers_sizes() -> None:
    config = LstmConfig(num_classes=1937)
    assert config.n_features == 160
    shapes = {name: tuple(p.shape) for name, p in LstmExplainer(config).state_dict().items()}
    assert shapes["embedding.weight"] == (4107, 100)
    assert shapes["lstm.weight_hh_l1_reverse"] == (160, 40)
    assert shapes["head.weight"] == (1937, 160)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 70), st.integers(0, 99))
def test_scan_equals_the_recurrence(n_steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decay, drive = torch.rand(2, 1, n_steps, 3, generator=generator)
    c, expected = torch.zeros(1, 3), []
    for t in range(n_steps):
        c = decay[:, t] * c + drive[:, t]
        expected.append(c)
    torch.testing.assert_close(linear_scan(decay, drive), torch.stack(expected, dim=1), atol=1e-5, rtol=1e-5)


def test_batch_norm_statistics_count_tokens_only() -> None:
    explainer = toy_explainer().train()
    ids = torch.randint(6, 4000, (3, 20))
    ids[1, 9:] = 1
    explainer.logits(ids, ids != 1)
    mean = explainer.norm.running_mean.clone()
    again = toy_explainer().train()
    padded = torch.cat((ids, torch.ones(3, 13, dtype=ids.dtype)), dim=1)
    again.logits(padded, padded != 1)
    torch.testing.assert_close(again.norm.running_mean, mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@torch.inference_mode()
def test_masks_act_on_embeddings_and_on_pooled_states(pooling: str) -> None:
    torch.manual_seed(2)
    model = NtExplanandum(TINY, [2, 3], pooling).eval()
    ids = torch.randint(3, 4107, (3, 20))
    ids[2, 11:] = 1
    valid = model.valid(ids)
    embedded = model.embed(ids)
    plain = model.classify(embedded, ids)
    torch.testing.assert_close(model.classify(embedded, ids, valid.float()), plain, atol=1e-5, rtol=0)
    biases = torch.cat([head.bias for head in model.classifiers])
    blank = model.classify(embedded, ids, torch.zeros_like(ids, dtype=torch.float32))
    if pooling == "mean":
        torch.testing.assert_close(blank, biases.expand_as(blank), atol=1e-6, rtol=0)
    mask = torch.rand(ids.shape) * valid
    hidden = model.encoder.encode(embedded * mask[..., None], valid)
    # The mean divides by the number of tokens, not by the sum of the mask.
    pooled = (hidden * mask[..., None]).sum(1) / valid.sum(1, keepdim=True) if pooling == "mean" else hidden[:, 0]
    expected = torch.cat([head(pooled) for head in model.classifiers], dim=-1)
    torch.testing.assert_close(model.classify(embedded, ids, mask), expected, atol=1e-5, rtol=0)


RANKS = [Rank("kingdom", ("a", "b")), Rank("genus", ("x", "y", "z"))]


def test_checkpoint_round_trip_and_strictness(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    model = NtExplanandum(TINY, [2, 3], "cls").eval()
    save_explanandum(model, RANKS, tmp_path, {"training": {"seed": 1}})
    loaded, ranks = load_explanandum(tmp_path)
    assert ranks == RANKS
    assert loaded.pooling == "cls"
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], tensor, rtol=0, atol=0)

    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    published = {
        "base_model.lm_head.bias": torch.zeros(3),
        "base_model.esm.embeddings.position_embeddings.weight": torch.ones(2),
    }
    save_file({**tensors, **published}, path)
    load_explanandum(tmp_path)  # what published files hold besides is accepted
    save_file({**tensors, "surprise": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="tensor surprise: got a tensor"):
        load_explanandum(tmp_path)
    missing = {k: v for k, v in tensors.items() if k != "classifiers.1.bias"}
    save_file(missing, path)
    with pytest.raises(ModelError, match=r"classifiers\.1\.bias: got nothing, expected shape \(3,\)"):
        load_explanandum(tmp_path)
    config = tmp_path / "base_model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"position_embedding_type": "absolute"}))
    with pytest.raises(ModelError, match="position_embedding_type"):
        load_explanandum(tmp_path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_label_pickle_builds_arrays_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data_processor"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"sequence_column": "sequence", "labels": ["kingdom", "genus"]}')
    encoders = {rank.name: np.array(rank.labels, dtype=object) for rank in reversed(RANKS)}
    content = {"encoders": encoders, "labels": ["genus", "kingdom"]}
    (folder / "data_processor.pkl").write_bytes(pickle.dumps(content, protocol=4))
    assert read_ranks(tmp_path) == RANKS
    (folder / "data_processor.pkl").write_bytes(pickle.dumps({"encoders": Evil()}))
    with pytest.raises(ModelError, match="expected numpy arrays only"):
        read_ranks(tmp_path)
    assert "executed" not in capsys.readouterr().out


def test_label_pickles_of_older_runs_load(tmp_path: Path) -> None:
    """The list form [encoders, ranks, ...], and encoders as a list in the order of the ranks."""
    folder = tmp_path / "data_processor"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"sequence_column": "sequence", "labels": ["kingdom", "genus"]}')
    encoders = {rank.name: np.array(rank.labels, dtype=object) for rank in RANKS}
    for first in (encoders, [encoders["genus"], encoders["kingdom"]]):
        content = [first, ["genus", "kingdom"], [3, 2], ["sequence"], []]
        (folder / "data_processor.pkl").write_bytes(pickle.dumps(content, protocol=4))
        assert read_ranks(tmp_path) == RANKS


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "without prefix"])
def test_bare_encoder_loads_strictly(layout: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(2)
    encoder = Encoder(TINY)
    (tmp_path / "config.json").write_text(TINY.to_json())
    prefix = "" if layout == "without prefix" else "esm."
    tensors = {f"{prefix}{key}": value for key, value in encoder.state_dict().items()}
    if prefix:
        tensors["lm_head.bias"] = torch.zeros(3)
    tensors |= {f"{prefix}embeddings.position_embeddings.weight": torch.ones(2)}
    if layout == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    elif layout == "sharded":
        for i, key in enumerate(tensors):
            save_file({key: tensors[key]}, tmp_path / f"part{i}.safetensors")
        weight_map = {key: f"part{i}.safetensors" for i, key in enumerate(tensors)}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    else:
        save_file(tensors, tmp_path / "model.safetensors")
    loaded = load_encoder(str(tmp_path))
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


def test_bare_encoder_never_unpickles_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(TINY.to_json())
    with pytest.raises(ModelError, match="expected one of them beside"):
        load_encoder(str(tmp_path))
    torch.save({"esm.x": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="expected tensors and nothing else"):
        load_encoder(str(tmp_path))
    assert "executed" not in capsys.readouterr().out
