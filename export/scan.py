"""A prefix scan whose number of rounds is fixed, in torch and in a graph, where its rounds need not be traced.

torch.onnx takes its time for every operation, so it sees all rounds as one node, which is replaced by the operations of
`rounds_function`.
"""

from __future__ import annotations

import onnx
import onnx_ir
import torch
from torch import Tensor

from .layers import DOMAIN

NAME = "Rounds"


def scan(decay: Tensor, drive: Tensor, max_steps: int) -> Tensor:
    """Return c with `c[t] = decay[t] c[t-1] + drive[t]`, c[-1] = 0, along dimension 0.

    The rounds are fixed by `max_steps`, so that the graph has no loop and any T up to it is right; steps are taken
    by Gather, so that a short T costs little.

    Args:
        decay, drive: float32 [T, B, D].
    Returns: float32 [T, B, D].
    """
    steps = torch.arange(decay.shape[0], device=decay.device)
    # Before the first step there is nothing to carry. So a product of decays that goes back to it or beyond is 0, and
    # what is gathered there counts for nothing.
    decay = torch.where((steps > 0)[:, None, None], decay, 0.0)
    if torch.onnx.is_in_onnx_export():
        inputs = decay, drive, steps
        node: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{NAME}", inputs, dtype=drive.dtype, shape=drive.shape, version=1
        )
        return node
    for round_ in range(n_rounds(max_steps)):
        index = (steps - 2**round_).clamp(min=0)
        drive = drive + decay * drive.index_select(0, index)
        decay = decay * decay.index_select(0, index)
    return drive


def n_rounds(max_steps: int) -> int:
    """Return how many rounds reach from the last of so many steps to the first."""
    return (max_steps - 1).bit_length()


def rounds_function(max_steps: int, opset: int) -> onnx_ir.Function:
    """Return the rounds of `scan` as a function of (decay, drive, steps), by the name that a graph calls it by."""
    lines = ["zero = Constant <value_int: int = 0> ()"]
    for i in range(n_rounds(max_steps)):
        lines += [
            f"back{i} = Constant <value_int: int = {2**i}> ()",
            f"before{i} = Sub (steps, back{i})",
            f"index{i} = Clip (before{i}, zero)",
            f"carried{i} = Gather <axis: int = 0> (drive{i}, index{i})",
            f"added{i} = Mul (decay{i}, carried{i})",
            f"drive{i + 1} = Add (drive{i}, added{i})",
            f"earlier{i} = Gather <axis: int = 0> (decay{i}, index{i})",
            f"decay{i + 1} = Mul (decay{i}, earlier{i})",
        ]
    lines.append(f"scanned = Identity (drive{n_rounds(max_steps)})")
    head = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]> {NAME} (decay0, drive0, steps) => (scanned)'
    return onnx_ir.serde.deserialize_function(onnx.parser.parse_function("\n".join((head, "{", *lines, "}"))))
