"""Small seeded models whose masks and predictions really vary, made once, on the fly; batches for them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wyr_batch.models.checkpoints import save_explainer, save_explanandum
from wyr_batch.models.encoder import EncoderConfig
from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.fused import Fused, FusedOutput
from wyr_batch.models.lstm import LstmConfig, LstmExplainer
from wyr_batch.ranks import Rank

RANKS = (
    Rank("superkingdom", ("Bacteria", "Viruses")),
    Rank("phylum", ("Bacillota", "Pseudomonadota", "Uroviricota")),
    Rank("genus", ("Bacillus", "Escherichia", "Listeria", "Salmonella", "Tequatrovirus")),
)
N_CLASSES = tuple(len(rank.labels) for rank in RANKS)
MAX_TOKENS = 512


@cache
def seeded_ids() -> torch.Tensor:
    """Return token ids int64 [64, 40], no padding."""
    ids = torch.randint(6, 4107, (64, 40), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 3
    return ids


def _spread(head: nn.Linear, inputs: torch.Tensor, deviation: float) -> None:
    """Scale and shift each class of a head so that its logits on inputs [N, F] have mean 0 and that deviation."""
    outputs = head(inputs)
    scale = deviation / outputs.std(dim=0)
    head.weight.mul_(scale.unsqueeze(1))
    head.bias.copy_((head.bias - outputs.mean(dim=0)) * scale)


@cache
def toy_explanandum(
    pooling: str = "mean", seed: int = 0, num_layers: int = 2, max_tokens: int = MAX_TOKENS
) -> NtExplanandum:
    """Return hidden 32, 4 heads, classes 2, 3 and 5, each of them predicted for some reads."""
    torch.manual_seed(seed)
    sizes = EncoderConfig(
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=max_tokens,
    )
    model = NtExplanandum(sizes, N_CLASSES, pooling)
    model.eval()
    with torch.no_grad():
        hidden = model.encoder(seeded_ids())
        pooled = model.pool(hidden, seeded_ids(), None)
        for head in model.classifiers:
            _spread(head, pooled, 2.0)
    return model


@cache
def toy_explainer(num_layers: int = 2, cell_states: bool = True, seed: int = 0, num_classes: int = 10) -> LstmExplainer:
    """Return embedding 12, hidden 8; mask logits of every class from about -3 to 3."""
    torch.manual_seed(seed)
    model = LstmExplainer(
        LstmConfig(
            embedding_dim=12,
            hidden_size=8,
            num_layers=num_layers,
            cell_states=cell_states,
            num_classes=num_classes,
        )
    )
    with torch.no_grad():
        for parameter in model.lstm.parameters():
            parameter.mul_(2.5)
        model.eval()
        ids = seeded_ids()
        features = torch.relu(model.features(ids, ids != 1)).flatten(0, 1)
        model.norm.running_mean.copy_(features.mean(dim=0))
        model.norm.running_var.copy_(features.var(dim=0).clamp(min=0.05))
        model.norm.weight.uniform_(0.5, 2.0)
        model.norm.bias.normal_()
        _spread(model.head, model.norm(features), 1.2)
    return model


def silent_explainer() -> LstmExplainer:
    """Return the toy with a mask of exact zeros for the first class of every rank."""
    explainer = copy.deepcopy(toy_explainer())
    with torch.no_grad():
        for first in (0, 2, 5):
            explainer.head.weight[first] = 0.0
            explainer.head.bias[first] = -200.0
    return explainer


def toy_fused(pooling: str = "mean") -> Fused:
    """Return the torch reference of the two models."""
    return Fused(toy_explanandum(pooling), toy_explainer()).eval()


def save_toy_checkpoints(
    folder: Path,
    num_classes: int = 10,
    explanandum: Explanandum | None = None,
    explainer: Explainer | None = None,
) -> tuple[Path, Path]:
    """Write explanandum/ and explainer/ under the folder and return the two paths."""
    places = folder / "explanandum", folder / "explainer"
    save_explanandum(explanandum or toy_explanandum(), RANKS, places[0], {"recipe": "toy", "seed": 0})
    save_explainer(explainer or toy_explainer(num_classes=num_classes), places[1], {"recipe": "toy", "epochs": 0})
    return places


def plain_pass(model: Explanandum, ids: torch.Tensor) -> PlainPass:
    """Return what an Explainer is given of reads, token ids [B, T]."""
    valid = model.valid(ids)
    return PlainPass(ids, valid, *model.read(model.embed(ids), ids))


def token_batch(lengths: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return input_ids int32 [B, max(lengths)] of seeded tokens, right-padded with 1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(6, 4107, size=(len(lengths), max(lengths)), dtype=np.int32)
    ids[:, 0] = 3
    ids[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = 1
    return ids


def ragged(n_rows: int, length: int) -> list[int]:
    """Return the lengths of a batch of rows, the first of them the longest."""
    return [length, *np.random.default_rng(length).integers(1, length + 1, size=n_rows - 1).tolist()]


def predicted(ids: np.ndarray) -> np.ndarray:
    """Return explain_ids that ask for the predicted classes, int32 [B, R]."""
    return np.full((len(ids), len(N_CLASSES)), -1, np.int32)


def torch_outputs(module: Fused, ids: np.ndarray, explain: np.ndarray) -> FusedOutput:
    """Return a module's outputs as arrays."""
    with torch.no_grad():
        return FusedOutput(*(value.numpy() for value in module(torch.from_numpy(ids), torch.from_numpy(explain))))
