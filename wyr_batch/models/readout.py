"""The readout Explainer: it reads what the Explanandum has computed on the plain read, and asks where the class is.

    evidence of the class asked for -> smoothed over tokens, several widths -> z-scored over the read   start
    hidden states -> narrow -> convolutions over tokens -> layer norm -> the class's row of a head      learned
        -> smoothed
    mask logit = gain x (weighted sum of the first + offset) + the second, eased around 0

The LSTM of the paper must guess from token ids what the classifier made of them. Here the final hidden states are the
input, and the heads' rows say what they mean for a class (`Explanandum.evidence`), so even before any training the mask
of a class lies where the classifier has found it. No step waits for another, so a GPU computes all tokens at once.

A classifier pooled by `<cls>` has no evidence to start from: there the sum's weights start at zero and are learned.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import shown_path
from wyr_batch.errors import ModelError
from wyr_batch.models.encoder import MOST_LAYERS, MOST_WIDTH
from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.numbers import full_precision

# Standard deviations, in tokens, that the evidence is smoothed with, and what each counts at the start.
SMOOTHING_TOKENS = (1, 4, 10, 20)
FIRST_WEIGHTS = (0.1, 0.4, 0.5, 0.5)
FIRST_GAIN = 8.0
LEARNED_TOKENS = 1  # standard deviation that smooths what is learned, so that masks are segments
# Nats by which the evidence of single tokens differs for no reason. Smoothed evidence that varies less over a read than
# such tokens would by chance points nowhere, and is not blown up (nor is a runtime's rounding).
CHANCE_SPREAD = 1.0
# What a token's learned features have to differ by before they count in full. Layer norm alone would blow up tokens
# whose features hardly differ, and with them the rounding of the hidden states, which is not alike in any two runtimes.
FEATURE_SPREAD = 1.0
# How the border between kept and hidden is eased: slope 1 - EASE / EASE_WIDTH at 0, 1 far from it.
EASE, EASE_WIDTH = 3.0, 4.5


@dataclass(frozen=True, slots=True)
class ReadoutConfig:
    """Sizes of a readout Explainer; `hidden_size` is the Explanandum's, `num_classes` counts all ranks together."""

    hidden_size: int
    num_ranks: int
    num_classes: int
    width: int = 96
    kernel_tokens: int = 9
    num_layers: int = 2
    evidence_start: bool = True

    @classmethod
    def from_json(cls, path: Path) -> ReadoutConfig:
        """Read the config.json that `to_json` writes. Raises: ModelError."""
        fields = Fields.read(path, ModelError, "Name the folder of an Explainer.")
        if unknown := sorted(fields.content.keys() - cls.__dataclass_fields__.keys() - {"kind"}):
            known = ", ".join(cls.__dataclass_fields__)
            raise ModelError(shown_path(path), f"the field {unknown[0]!r}", known, "Is it another model?")

        def size(name: str, most: int = MOST_WIDTH) -> int:
            return fields.whole(name, least=1, most=most)

        config = cls(
            hidden_size=size("hidden_size"),
            num_ranks=size("num_ranks", MOST_LAYERS),
            num_classes=size("num_classes"),
            width=size("width"),
            kernel_tokens=size("kernel_tokens", 999),
            num_layers=size("num_layers", MOST_LAYERS),
            evidence_start=fields.flag("evidence_start"),
        )
        if config.kernel_tokens % 2 == 0:
            raise fields.wrong("kernel_tokens", "an odd number: a token and as many on either side")
        return config

    def to_json(self) -> str:
        return json.dumps({"kind": "readout", **asdict(self)}, indent=2) + "\n"


class _Mixer(nn.Module):
    """Each token looks at its neighbours (a convolution of its own for each feature), then mixes features."""

    def __init__(self, width: int, kernel_tokens: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, width, kernel_tokens, padding=kernel_tokens // 2, groups=width)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """Return x [B, T, F] with what was mixed added; kept: float [B, T, 1], 0 at padding."""
        near = self.near((x * kept).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.mix(F.silu(near))
        return out


class ReadoutExplainer(Explainer):
    """Hidden states and evidence of the asked classes to mask logits."""

    kind = "readout"
    config: ReadoutConfig
    smoothing: Tensor  # [S + 1], `SMOOTHING_TOKENS` and `LEARNED_TOKENS`

    def __init__(self, config: ReadoutConfig) -> None:
        super().__init__()
        self.config = config
        start = torch.tensor(FIRST_WEIGHTS) if config.evidence_start else torch.zeros(len(FIRST_WEIGHTS))
        self.weights = nn.Parameter(start.repeat(config.num_ranks, 1))  # [R, S]
        self.offset = nn.Parameter(torch.zeros(config.num_ranks))
        self.gain = nn.Parameter(torch.full((config.num_ranks,), FIRST_GAIN))
        self.narrow = nn.Linear(config.hidden_size, config.width)
        self.layers = nn.ModuleList(_Mixer(config.width, config.kernel_tokens) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, eps=FEATURE_SPREAD**2)
        self.head = nn.Linear(config.width, config.num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer(
            "smoothing", torch.tensor((*SMOOTHING_TOKENS, LEARNED_TOKENS), dtype=torch.float32), persistent=False
        )

    def sizes_of(self, explanandum: Explanandum) -> dict[str, int]:
        sizes = {"hidden_size": explanandum.hidden_size, "num_ranks": len(explanandum.n_classes)}
        return super().sizes_of(explanandum) | sizes

    def class_logits(
        self, explanandum: Explanandum, plain: PlainPass, classes: Tensor, ahead: Tensor | None = None
    ) -> Tensor:
        n_ranks = self.config.num_ranks
        repeats = classes.shape[1] // n_ranks
        first = torch.tensor([s.start for s in explanandum.slices], device=classes.device)
        kept = plain.valid.to(self.norm.weight.dtype).unsqueeze(1)  # [B, 1, T]
        near = self._gaussians(kept.shape[2])
        evidence = explanandum.evidence(plain.hidden, plain.logits, classes - first.repeat(repeats))
        seen = _smoothed(evidence, kept, near[:, :-1])  # [B, N, S, T]
        weights, gain = self.weights.repeat(repeats, 1), self.gain.repeat(repeats)
        asked = (seen * weights[:, :, None]).sum(dim=2) + self.offset.repeat(repeats)[:, None]
        learned = _averaged(self._learned(plain.hidden, kept, classes), kept, near[:, -1:]).squeeze(2)
        bias = F.embedding(classes, self.head.bias.unsqueeze(1))  # [B, N, 1]
        return _eased(gain[:, None] * asked + learned + bias)

    def _gaussians(self, n_tokens: int) -> Tensor:
        """Return what each token counts for each other one, by their distance: float [T, S, T]."""
        place = torch.arange(n_tokens, device=self.smoothing.device)
        distance = (place[:, None, None] - place).to(self.smoothing.dtype)  # [T, 1, T]
        return torch.exp(-0.5 * (distance / self.smoothing[:, None]) ** 2)

    def _learned(self, hidden: Tensor, kept: Tensor, classes: Tensor) -> Tensor:
        """Return what training has added to the logits, before smoothing and bias, [B, N, T]; kept: float [B, 1, T]."""
        x: Tensor = self.narrow(full_precision(hidden))
        for layer in self.layers:
            x = layer(x, kept.transpose(1, 2))
        rows = F.embedding(classes, self.head.weight)  # [B, N, F]
        out: Tensor = rows @ self.norm(x).transpose(1, 2)
        return out


def _eased(x: Tensor) -> Tensor:
    """Return mask logits that pass 0 less steeply, and are as far from it as before at either side.

    A sigmoid is four times as steep at its middle as it needs to be to reach its ends: there a runtime's rounding would
    show most. This makes it nearly a ramp, so that masks are as decided and a third as sensitive.
    """
    return x - EASE * torch.tanh(x / EASE_WIDTH)


def _smoothed(evidence: Tensor, kept: Tensor, near: Tensor) -> Tensor:
    """Return evidence [B, N, T] averaged with each Gaussian and z-scored over the read, [B, N, S, T]."""
    # Centred before as well, so that rounding is of what differs between tokens, not of what they have in common.
    centred = _centred(_averaged(_centred(evidence, kept), kept, near), kept.unsqueeze(2))
    n_kept = kept.sum(dim=-1).view(-1, 1, 1, 1)
    variance = (centred * centred).sum(dim=-1, keepdim=True) / n_kept
    # The variance that is left of tokens which differ by chance alone.
    left = (
        _weighted(kept, near * near) / _weighted(kept, near).clamp(min=1e-6).square() * kept.unsqueeze(2)
    )  # [B, 1, S, T]
    return centred / torch.sqrt(variance + CHANCE_SPREAD**2 * left.sum(dim=-1, keepdim=True) / n_kept)


def _centred(values: Tensor, kept: Tensor) -> Tensor:
    """Return values [..., T] less their mean over the tokens kept, 0 at padding; a read has at least one token."""
    return (values - (values * kept).sum(dim=-1, keepdim=True) / kept.sum(dim=-1, keepdim=True)) * kept


def _weighted(values: Tensor, near: Tensor) -> Tensor:
    """Return sums of values [B, N, T] over tokens, as `near` [T, S, T] weights them, [B, N, S, T]."""
    sums = values.flatten(0, 1) @ near.flatten(1)
    return sums.view(values.shape[0], values.shape[1], near.shape[1], near.shape[2])


def _averaged(values: Tensor, kept: Tensor, near: Tensor) -> Tensor:
    """Return values [B, N, T] averaged over neighbours as `near` [T, S, T] weights them, [B, N, S, T], 0 at padding.

    At the ends of a read there are fewer neighbours, and they count for all; kept: float [B, 1, T], 0 at padding.
    """
    return _weighted(values * kept, near) / _weighted(kept, near).clamp(min=1e-6) * kept.unsqueeze(2)
