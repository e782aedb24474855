"""The paper's Explainer: a small bidirectional LSTM that reads token ids and gives a mask logit per token and class.

    ids -> embedding 100 -> 2-layer BiLSTM, 40 nodes -> [h fwd, h bwd, c fwd, c bwd] of the last layer (160)
        -> ReLU -> batch norm -> linear to C classes -> sigmoid

Source: Berman et al., "What You Read is What You Classify", section Explainer and figure 4. An LSTM layer returns
hidden states only, so the cell states of the last layer are recomputed: the gates of all steps at once from the
hidden states, then `c[t] = f[t] c[t-1] + i[t] g[t]` as a prefix scan of logarithmic depth. The backward direction
runs forward over each read turned around at its own last token, so padding never reaches it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from wyr_batch.kernels.choose import Timer

BATCH_NORM_EPS = 1e-5
# Hidden states are at most 1, and cell states some more; a kernel adds in another order than cuDNN.
LSTM_LIMIT = 2e-5


@dataclass(frozen=True, slots=True)
class LstmConfig:
    """Sizes of an LSTM Explainer; `num_classes` counts the classes of all ranks together."""

    vocab_size: int = 4107
    embedding_dim: int = 100
    hidden_size: int = 40
    num_layers: int = 2
    cell_states: bool = True
    num_classes: int = 0

    @property
    def n_features(self) -> int:
        return self.hidden_size * (4 if self.cell_states else 2)

    @classmethod
    def from_json(cls, path: Path) -> LstmConfig:
        """Read the config.json that `to_json` writes. Raises: ModelError."""
        fields = Fields.read(path, ModelError, "Name the folder of an Explainer.")
        fields.text("kind", "lstm", one_of=("lstm",))
        if unknown := sorted(fields.content.keys() - cls.__dataclass_fields__.keys() - {"kind"}):
            known = ", ".join(cls.__dataclass_fields__)
            raise ModelError(shown_path(path), f"the field {unknown[0]!r}", known, "Is it another model?")
        usual = cls()

        def size(name: str, most: int = MOST_WIDTH) -> int:
            return fields.whole(name, getattr(usual, name), least=1, most=most)

        return cls(
            vocab_size=size("vocab_size"),
            embedding_dim=size("embedding_dim"),
            hidden_size=size("hidden_size"),
            num_layers=size("num_layers", MOST_LAYERS),
            cell_states=fields.flag("cell_states", usual.cell_states),
            num_classes=fields.whole("num_classes", least=1, most=MOST_WIDTH),
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def reversal(valid: Tensor) -> Tensor:
    """Return the index that turns each row around at its own last token; padding stays where it is.

    Args:
        valid: bool [B, T], True at tokens, right-padded.
    Returns: int64 [B, T]; applying it twice gives the row back.
    """
    n_tokens = valid.sum(dim=1, keepdim=True)  # [B, 1]
    steps = torch.arange(valid.shape[1], device=valid.device)[None, :]  # [1, T]
    return torch.where(valid, n_tokens - 1 - steps, steps)


def take_steps(x: Tensor, index: Tensor) -> Tensor:
    """Return x [B, T, D] with its steps reordered row by row as index [B, T] says."""
    return torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def linear_scan(decay: Tensor, drive: Tensor) -> Tensor:
    """Return c with `c[t] = decay[t] c[t-1] + drive[t]`, c[-1] = 0, along dimension 1.

    A Hillis-Steele scan: log2(T) rounds over all steps at once. Always float32: half precision is wrong by 0.1
    and more where forget gates are near 1.

    Args:
        decay, drive: [B, T, D].
    Returns: float32 [B, T, D] (float64 of float64).
    """
    decay, drive = full_precision(decay), full_precision(drive)
    distance, n_steps = 1, decay.shape[1]
    while distance < n_steps:
        drive = torch.cat((drive[:, :distance], drive[:, distance:] + decay[:, distance:] * drive[:, :-distance]), 1)
        decay = torch.cat((decay[:, :distance], decay[:, distance:] * decay[:, :-distance]), 1)
        distance *= 2
    return drive


class LstmExplainer(Explainer):
    """Token ids to mask logits, for all classes or for some gathered rows of the output layer."""

    kind = "lstm"
    config: LstmConfig

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.lstm = nn.LSTM(
            config.embedding_dim, config.hidden_size, config.num_layers, batch_first=True, bidirectional=True
        )
        self.norm = nn.BatchNorm1d(config.n_features, eps=BATCH_NORM_EPS)
        self.head = nn.Linear(config.n_features, config.num_classes)
        self.paired: nn.ModuleList | None = None  # see pair_directions
        self.by_kernel = False  # see choose_kernels

    def pair_directions(self) -> None:
        """Prepare for inference on a GPU: both directions of a layer become one LSTM of twice the width.

        A GPU takes as long for a step of the narrow LSTM as for one of the wide one, so half the steps is half the
        time. The two halves do not mix: weights are block-diagonal, [forward | backward] within each gate. Call it
        after loading, and on a copy: the state dict grows.
        """
        layers = []
        for layer in range(self.config.num_layers):
            forward, backward = self.weights(layer, backward=False), self.weights(layer, backward=True)
            wide = nn.LSTM(2 * forward[0].shape[1], 2 * self.config.hidden_size, batch_first=True)
            with torch.no_grad():
                for index, name in enumerate(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")):
                    gates = zip(forward[index].chunk(4), backward[index].chunk(4), strict=True)
                    join = torch.block_diag if index < 2 else lambda *halves: torch.cat(halves)
                    getattr(wide, name).copy_(torch.cat([join(*halves) for halves in gates]))
            layers.append(wide)
        self.paired = nn.ModuleList(layers)

    def prepare_for_gpu(self) -> None:
        self.pair_directions()

    def choose_kernels(self, timer: Timer, timed: tuple[int, int]) -> None:
        """Compute features by kernels/bilstm.py where that is right and faster. Raises: ImportError without Triton."""
        from wyr_batch.kernels.bilstm import MOST_HIDDEN
        from wyr_batch.kernels.choose import device_name, fastest

        if self.config.hidden_size > MOST_HIDDEN:
            return
        device = self.embedding.weight.device
        places = torch.arange(max(timed[1], 9), device=device)
        generator = torch.Generator().manual_seed(0)
        cases = []
        for rows, n_tokens in (timed, (5, 9), (1, 1)):
            ids = torch.randint(self.config.vocab_size, (rows, n_tokens), generator=generator).to(device, torch.int32)
            lengths = torch.randint(1, n_tokens + 1, (rows, 1), generator=generator).to(device)
            lengths[0] = n_tokens
            cases.append((ids, places[:n_tokens] < lengths))
        ways = {"torch": _kept(self.features), "triton": _kept(self.features_by_kernel)}
        key = device_name(device), self.config
        self.by_kernel = fastest("LSTM", ways, cases, LSTM_LIMIT, key, timer) == "triton"

    def features_by_kernel(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """As `features`, by a kernel that gives both directions' hidden and cell states in one pass; 0 at padding."""
        from wyr_batch.kernels.bilstm import bilstm

        lengths = valid.sum(dim=1, dtype=torch.int32)
        words: Tensor | None = input_ids.contiguous()
        x: Tensor = self.embedding.weight  # of each word, for the first layer
        for layer in range(self.config.num_layers):
            forward, backward = self.weights(layer, backward=False), self.weights(layer, backward=True)
            w_ih, w_hh, b_ih, b_hh = (torch.cat(pair) for pair in zip(forward, backward, strict=True))
            gates = F.linear(x, w_ih, b_ih + b_hh).view(*x.shape[:-1], 2, 4, -1)
            last = layer == self.config.num_layers - 1
            recurrent = w_hh.view(2, 4, -1, w_hh.shape[1])
            x = bilstm(gates, lengths, recurrent, words, cell_states=last and self.config.cell_states)
            words = None
        return x

    def weights(self, layer: int, backward: bool) -> list[Tensor]:
        """Return (w_ih, w_hh, b_ih, b_hh) of one direction of one LSTM layer, gates in torch's order i, f, g, o."""
        suffix = f"l{layer}{'_reverse' if backward else ''}"
        return [getattr(self.lstm, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def _direction(self, x: Tensor, layer: int, backward: bool) -> Tensor:
        """Run one direction of one layer over x [B, T, D], already turned around if backward; [B, T, H]."""
        zeros = x.new_zeros(1, x.shape[0], self.config.hidden_size)
        hidden: Tensor = torch.lstm(
            x, (zeros, zeros), self.weights(layer, backward), True, 1, 0.0, self.training, False, True
        )[0]
        return hidden

    def _cells(self, x: Tensor, hidden: Tensor, backward: bool) -> Tensor:
        """Recompute the last layer's cell states [B, T, H] from its inputs and hidden states."""
        w_ih, w_hh, b_ih, b_hh = self.weights(self.config.num_layers - 1, backward)
        before = F.pad(hidden, (0, 0, 1, 0))[:, :-1]  # h[t-1], zeros at the start
        gates = F.linear(x, w_ih, b_ih + b_hh) + F.linear(before, w_hh)
        gate_in, forget, candidate, _ = gates.chunk(4, dim=-1)
        return linear_scan(torch.sigmoid(forget), torch.sigmoid(gate_in) * torch.tanh(candidate))

    def features(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """Return the per-token features before ReLU: [h forward, h backward, c forward, c backward].

        Args:
            input_ids: int32 or int64 [B, T], right-padded.
            valid: bool [B, T], True at tokens.
        Returns: float32 [B, T, 160] (80 without cell states); what stands at padding means nothing.
        """
        if self.by_kernel:
            return self.features_by_kernel(input_ids, valid)
        turn = reversal(valid)
        x = self.embedding(input_ids)
        for layer in range(self.config.num_layers):
            x_turned = take_steps(x, turn)
            if self.paired is not None:
                both = self.paired[layer](torch.cat((x, x_turned), dim=-1))[0]
                forward, turned = both.chunk(2, dim=-1)
            else:
                forward = self._direction(x, layer, backward=False)
                turned = self._direction(x_turned, layer, backward=True)
            if layer < self.config.num_layers - 1:
                x = torch.cat((forward, take_steps(turned, turn)), dim=-1)
        if not self.config.cell_states:
            return torch.cat((forward, take_steps(turned, turn)), dim=-1)
        backward_half = torch.cat((turned, self._cells(x_turned, turned, backward=True)), dim=-1)
        h_back, c_back = take_steps(backward_half, turn).chunk(2, dim=-1)
        return torch.cat((forward, h_back, self._cells(x, forward, backward=False), c_back), dim=-1)

    def normalised(self, features: Tensor, valid: Tensor) -> Tensor:
        """ReLU and batch norm of features [B, T, F]; in training the statistics count real tokens only."""
        x = F.relu(features)
        if not self.training:
            out: Tensor = self.norm(x.flatten(0, 1)).view_as(x)
            return out
        return torch.zeros_like(x).masked_scatter(valid.unsqueeze(-1), self.norm(x[valid]))

    def logits(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits of every class, [B, T, C]. Large: prefer `class_logits` where a few will do."""
        out: Tensor = self.head(self.normalised(self.features(input_ids, valid), valid))
        return out

    def ahead(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """Return normalised features [B, T, F]: all but the classes' rows of the output layer."""
        return self.normalised(self.features(input_ids, valid), valid)

    def class_logits(
        self, explanandum: Explanandum, plain: PlainPass, classes: Tensor, ahead: Tensor | None = None
    ) -> Tensor:
        """Return mask logits of chosen classes, as `Explainer.class_logits` says; only ids and padding are read."""
        x = self.ahead(plain.input_ids, plain.valid) if ahead is None else ahead
        rows = self.head.weight[classes]  # [B, R, F]
        return rows @ x.transpose(1, 2) + self.head.bias[classes].unsqueeze(-1)

    def forward(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        return self.logits(input_ids, valid)


def _kept(features: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the features of tokens, 0 at padding, where they mean nothing."""
    return lambda input_ids, valid: features(input_ids, valid) * valid.unsqueeze(-1)
