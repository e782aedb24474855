"""The graph's tensors: their names, types and shapes, once, for everything that writes, runs or compares a graph.

B rows, T padded tokens, R ranks, C classes of all ranks

input_ids      int32   [B, T]      `<cls>` first, right-padded
explain_ids    int32   [B, R]      class within the rank, -1 the predicted one
-> mask, rank_masks, explained_ids, probs, masked_probs, see `EngineOutput`

Without masked calls the second pass of the classifier, which gives masked_probs alone, is not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]

Dim = TypeVar("Dim")

INPUTS = ("input_ids", "explain_ids")


class EngineOutput(NamedTuple):
    """One batch's results; values at padding are 0.

    Attributes:
        mask: float32 [B, T].
        rank_masks: float32 [B, R, T].
        explained_ids: int32 [B, R], class within the rank.
        probs: float32 [B, C], plain read.
        masked_probs: float32 [B, C], masked read; [B, 0] without masked calls.
    """

    mask: Float32s
    rank_masks: Float32s
    explained_ids: Int32s
    probs: Float32s
    masked_probs: Float32s


OUTPUTS = EngineOutput._fields
OF_SECOND_PASS = "masked_probs"


def outputs_of(masked_calls: bool) -> tuple[str, ...]:
    """Return the names of the outputs that are computed, in order."""
    return OUTPUTS if masked_calls else tuple(name for name in OUTPUTS if name != OF_SECOND_PASS)


def engine_output(computed: Mapping[str, npt.NDArray[Any]]) -> EngineOutput:
    """Return outputs that come by name; what was not computed has no columns."""
    absent = {OF_SECOND_PASS: np.empty((len(computed["mask"]), 0), np.float32)}
    return EngineOutput(**{**absent, **computed})


def output_shapes(
    rows: Dim, n_tokens: Dim, n_ranks: Dim, n_classes: Dim, masked_calls: bool = True
) -> dict[str, tuple[Dim, ...]]:
    """Return the shape of each computed output by name; sizes are numbers, or names of sizes that are left open."""
    shapes: dict[str, tuple[Dim, ...]] = {
        "mask": (rows, n_tokens),
        "rank_masks": (rows, n_ranks, n_tokens),
        "explained_ids": (rows, n_ranks),
        "probs": (rows, n_classes),
        "masked_probs": (rows, n_classes),
    }
    return {name: shapes[name] for name in outputs_of(masked_calls)}


def is_whole(output: str) -> bool:
    """True if an output holds int32, False if float32."""
    return output == "explained_ids"


def output_dtype(output: str) -> type[np.int32] | type[np.float32]:
    """Return the type of an output's numbers."""
    return np.int32 if is_whole(output) else np.float32
