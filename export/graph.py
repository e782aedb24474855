"""The Explainer and the whole fused function rewritten so that every ONNX runtime computes them.

A graph has no packed sequences, and runtimes disagree on lengths and on reverse LSTMs, so each bidirectional layer
is ONE forward LSTM over two streams side by side, its weights block-diagonal:

    x      c A C G T . .     the read                       h = hidden size of one direction (40)
    R(x)   T G C A c . .     the read turned around at      the LSTM is 2h wide: [forward | backward]
                             its own last token             the backward half lives in turned time
    layer 1:     y = LSTM([x, R(x)])
    layer k > 1: y = LSTM([y, R(y)]), forward rows reading [hf . . R(hb)], backward rows reading [. hb R(hf) .]

Running over right padding is exact at tokens, and nothing needs lengths. The cell states of the last layer are a
prefix scan whose number of rounds is fixed by `max_tokens`. Batch norm is folded into the linear layer, of which only
the rows of the chosen classes are used.

Inside, tensors are time-major as ONNX LSTMs want them: [T, B, D]. Not handled: more tokens than `max_tokens`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wyr_batch.errors import ShapeError
from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.fused import Fused
from wyr_batch.models.lstm import LstmConfig, LstmExplainer, reversal
from wyr_batch.models.numbers import full_precision
from wyr_batch.models.precision import in_precision

from .scan import scan

# Of the LSTM operator, not of the file: 14 is what every runtime registers, and it may not exceed the file's opset.
LSTM_VERSION = 14

TORCH_GATES, ONNX_GATES = "ifgo", "iofg"  # g is what ONNX calls c


class GraphLstm(Explainer):
    """An LSTM Explainer for export: the same `class_logits`, from the same weights, in portable operations.

    While torch.onnx exports, LSTMs are written as ONNX nodes; otherwise torch computes them from the same weights.
    """

    kind = "lstm"
    config: LstmConfig
    embedding: Tensor  # [V, E]
    cell_weight: Tensor  # [D + 2h, 6h], rows: inputs then previous hidden states; columns: gates i, f, g
    cell_bias: Tensor  # [6h]
    head_weight: Tensor  # [C, F], columns [h forward, (c forward,) h backward, (c backward)]
    head_bias: Tensor  # [C, 1]

    def __init__(self, explainer: LstmExplainer, max_tokens: int) -> None:
        super().__init__()
        self.config = explainer.config
        self.hidden_size = explainer.config.hidden_size
        self.n_layers = explainer.config.num_layers
        self.cell_states = explainer.config.cell_states
        self.max_tokens = max_tokens
        self.register_buffer("embedding", explainer.embedding.weight.detach().clone())
        for layer in range(self.n_layers):
            for name, value in zip("wrb", _onnx_lstm_weights(explainer, layer), strict=True):
                self.register_buffer(f"{name}{layer}", value)
        if self.cell_states:
            w, r, b = self._lstm_weights(self.n_layers - 1)
            both = _reorder(torch.cat((w[0], r[0]), dim=1), ONNX_GATES, "ifg")
            bias = _reorder(sum(b[0].chunk(2)), ONNX_GATES, "ifg")  # type: ignore[arg-type]
            self.register_buffer("cell_weight", both.t().contiguous())
            self.register_buffer("cell_bias", bias)
        weight, bias = _folded_head(explainer)
        self.register_buffer("head_weight", weight)
        self.register_buffer("head_bias", bias)

    def _lstm_weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        return getattr(self, f"w{layer}"), getattr(self, f"r{layer}"), getattr(self, f"b{layer}")

    def _lstm(self, x: Tensor, layer: int) -> Tensor:
        """Run one layer over both streams: x [T, B, D] -> [T, B, 2h]."""
        w, r, b = self._lstm_weights(layer)
        width = 2 * self.hidden_size
        if torch.onnx.is_in_onnx_export():
            hidden = torch.onnx.ops.symbolic(
                "LSTM",
                (x, w, r, b),
                attrs={"direction": "forward", "hidden_size": width},
                dtype=x.dtype,
                shape=(x.shape[0], 1, x.shape[1], width),
                version=LSTM_VERSION,
            )
            return hidden.squeeze(1)
        w_ih, w_hh, b_ih, b_hh = (_reorder(part, ONNX_GATES, TORCH_GATES) for part in (w[0], r[0], *b[0].chunk(2)))
        zeros = x.new_zeros(1, x.shape[1], width)
        out: Tensor = torch.lstm(x, (zeros, zeros), [w_ih, w_hh, b_ih, b_hh], True, 1, 0.0, False, False, False)[0]
        return out

    def _cells(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Recompute the last layer's cell states, float32 [T, B, 2h], from inputs [T, B, D] and hidden [T, B, 2h]."""
        before = torch.cat((torch.zeros_like(hidden[:1]), hidden[:-1]), dim=0)  # h[t-1]
        gates = torch.cat((x, before), dim=-1) @ self.cell_weight + self.cell_bias
        gate_in, forget, candidate = full_precision(gates).chunk(3, dim=-1)
        return scan(torch.sigmoid(forget), torch.sigmoid(gate_in) * torch.tanh(candidate), self.max_tokens)

    def features(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """Return per-token features before ReLU, in the column order of `head_weight`.

        Args:
            input_ids: int32 or int64 [B, T], right-padded, T at most `max_tokens`.
            valid: bool [B, T], True at tokens.
        Returns: float32 [T, B, F]; what stands at padding means nothing.
        """
        h = self.hidden_size
        rows = torch.arange(valid.shape[0], device=valid.device)
        turn = (reversal(valid).t() * valid.shape[0] + rows).flatten()  # among the T * B rows of a [T, B, D]
        ids = input_ids.t().flatten()
        steps = (*input_ids.t().shape, -1)
        x = torch.cat((self._embed(ids), self._embed(ids.index_select(0, turn))), dim=-1).view(steps)
        hidden = self._lstm(x, 0)
        for layer in range(1, self.n_layers):
            x = torch.cat((hidden, _turned(hidden, turn)), dim=-1)
            hidden = self._lstm(x, layer)
        forward, backward = full_precision(hidden[..., :h]), full_precision(hidden[..., h:])
        if self.cell_states:
            cells = self._cells(x, hidden)
            forward = torch.cat((forward, cells[..., :h]), dim=-1)
            backward = torch.cat((backward, cells[..., h:]), dim=-1)
        return torch.cat((forward, _turned(backward, turn)), dim=-1)

    def _embed(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.embedding)

    def class_logits(
        self, explanandum: Explanandum, plain: PlainPass, classes: Tensor, ahead: Tensor | None = None
    ) -> Tensor:
        """Return mask logits of chosen classes, as `Explainer.class_logits` says; only ids and padding are read.

        Raises: ShapeError if T exceeds `max_tokens` (an exported graph does not check).
        """
        input_ids = plain.input_ids
        if not torch.onnx.is_in_onnx_export() and input_ids.shape[1] > self.max_tokens:
            raise ShapeError(
                "input_ids",
                f"{input_ids.shape[1]} tokens",
                f"at most {self.max_tokens}",
                "Cut the read into windows, or export with a larger max_tokens.",
            )
        x = torch.relu(self.features(input_ids, plain.valid))
        rows = full_precision(nn.functional.embedding(classes, self.head_weight))  # [B, R, F]
        bias = full_precision(nn.functional.embedding(classes, self.head_bias))  # [B, R, 1]
        return rows @ x.permute(1, 2, 0) + bias


def graph_module(explanandum: Explanandum, explainer: Explainer, max_tokens: int, dtype: str = "float32") -> Fused:
    """Return the fused function in portable operations, in evaluation mode.

    Both models are copied, so the ones given stay as they are. The result also runs in torch.

    Args:
        max_tokens: the longest row the graph must take, `<cls>` counted.
        dtype: 'float32' or 'float16'; what stays float32 then is said in `wyr_batch.models.precision`.
    """
    portable = copy.deepcopy(explanandum)
    portable.write_out_attention()
    # A readout Explainer is written in portable operations as it is.
    for_graph = GraphLstm(explainer, max_tokens) if isinstance(explainer, LstmExplainer) else copy.deepcopy(explainer)
    return in_precision(Fused(portable, for_graph).eval(), dtype)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each read around: x [T, B, D], turn int64 [T * B] from `reversal`."""
    return x.flatten(0, 1).index_select(0, turn).view_as(x)


def _reorder(rows: Tensor, gates: str, wanted: str) -> Tensor:
    """Return rows [len(gates) * D, ...] with its gates chosen and ordered as `wanted`."""
    parts = dict(zip(gates, rows.chunk(len(gates)), strict=True))
    return torch.cat([parts[gate] for gate in wanted])


def _onnx_lstm_weights(explainer: LstmExplainer, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return W [1, 8h, D], R [1, 8h, 2h] and B [1, 16h] of one bidirectional layer as one forward LSTM.

    Within each gate the forward rows come first: the block of gate k is rows 2hk to 2h(k + 1).
    """
    forward = [part.detach() for part in explainer.weights(layer, backward=False)]
    backward = [part.detach() for part in explainer.weights(layer, backward=True)]
    blocks = []
    for index in range(4):  # w_ih, w_hh, b_ih, b_hh
        per_gate = []
        for first, second in zip(forward[index].chunk(4), backward[index].chunk(4), strict=True):
            if index >= 2:
                per_gate.append(torch.cat((first, second)))
            elif index == 0 and layer:  # columns hf, hb, R(hf), R(hb); trained on hf, hb in the read's own time
                of_forward, of_backward = first.chunk(2, dim=1)
                top = torch.cat((of_forward, torch.zeros_like(first), of_backward), dim=1)
                of_forward, of_backward = second.chunk(2, dim=1)
                zeros = torch.zeros_like(of_forward)
                per_gate.append(torch.cat((top, torch.cat((zeros, of_backward, of_forward, zeros), dim=1))))
            else:
                top = torch.cat((first, torch.zeros_like(second)), dim=1)
                per_gate.append(torch.cat((top, torch.cat((torch.zeros_like(first), second), dim=1))))
        blocks.append(_reorder(torch.cat(per_gate), TORCH_GATES, ONNX_GATES))
    w, r, b_ih, b_hh = blocks
    return w.unsqueeze(0), r.unsqueeze(0), torch.cat((b_ih, b_hh)).unsqueeze(0)


def _folded_head(explainer: LstmExplainer) -> tuple[Tensor, Tensor]:
    """Return the output layer with batch norm folded in, float32 [C, F] and [C, 1], columns as the graph makes them."""
    norm, head = explainer.norm, explainer.head
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight.detach().double() / torch.sqrt(variance.double() + norm.eps)
    shift = norm.bias.detach().double() - mean.double() * scale
    weight = head.weight.detach().double()
    bias = head.bias.detach().double() + weight @ shift
    # Trained order [h fwd, h bwd, c fwd, c bwd] -> [h fwd, c fwd, h bwd, c bwd]: the backward half turns in one go.
    parts = (weight * scale).chunk(4 if explainer.config.cell_states else 2, dim=1)
    return torch.cat((*parts[0::2], *parts[1::2]), dim=1).float(), bias.float().unsqueeze(1)
