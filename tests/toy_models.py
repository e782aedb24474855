"""Small seeded models whose masks and predictions really vary; made once, on the fly."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import nn

from wyr_batch.models.checkpoints import save_explainer, save_explanandum
from wyr_batch.models.encoder import EncoderConfig
from wyr_batch.models.explainer import Explainer, ExplainerConfig
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.fused import Fused
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
def toy_explanandum(pooling: str = "mean", seed: int = 0) -> Explanandum:
    """Return hidden 32, 2 layers, 4 heads, classes 2, 3 and 5, each of them predicted for some reads."""
    torch.manual_seed(seed)
    sizes = EncoderConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=MAX_TOKENS,
    )
    model = Explanandum(sizes, N_CLASSES, pooling)
    model.eval()
    with torch.no_grad():
        hidden = model.encoder(seeded_ids())
        pooled = model.pool(hidden, seeded_ids() != 1, None)
        for head in model.classifiers:
            _spread(head, pooled, 2.0)
    return model


@cache
def toy_explainer(num_layers: int = 2, cell_states: bool = True, seed: int = 0, num_classes: int = 10) -> Explainer:
    """Return embedding 12, hidden 8; mask logits of every class from about -3 to 3."""
    torch.manual_seed(seed)
    model = Explainer(
        ExplainerConfig(
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


def toy_fused(pooling: str = "mean") -> Fused:
    """Return the torch reference of the two models."""
    return Fused(toy_explanandum(pooling), toy_explainer()).eval()


def save_toy_checkpoints(folder: Path, num_classes: int = 10) -> tuple[Path, Path]:
    """Write explanandum/ and explainer/ under the folder and return the two paths."""
    explanandum, explainer = folder / "explanandum", folder / "explainer"
    save_explanandum(toy_explanandum(), RANKS, explanandum, {"recipe": "toy", "seed": 0})
    save_explainer(toy_explainer(num_classes=num_classes), explainer, {"recipe": "toy", "epochs": 0})
    return explanandum, explainer
