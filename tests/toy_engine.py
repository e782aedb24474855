"""An engine in plain numpy, exactly padding-invariant, for tests of everything around the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wyr_batch import api
from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.errors import ModelError
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats
from wyr_batch.ranks import Rank

RANKS = (Rank("kingdom", ("Animal", "Plant")), Rank("family", ("a", "b", "c")))


class ToyBundle(Bundle):
    """A bundle that is no folder."""

    sha256 = "0" * 64  # type: ignore[assignment]


class FileBundle(ToyBundle):
    """The toy, with a file that stands for both precisions of the graph."""

    def verified(self, kind: str, dtype: str) -> Path:
        if dtype not in ("float32", "float16"):
            raise ModelError(self.name, f"no {kind} {dtype}", "one")
        return self.folder / "model.onnx"

    def holds(self, kind: str, dtype: str) -> bool:
        return kind == "onnx"


def toy_bundle(window_bp: int = 60, max_tokens: int = 64) -> Bundle:
    return ToyBundle(
        folder=Path(__file__).parent / "data",
        name="toy",
        ranks=RANKS,
        max_tokens=max_tokens,
        window_bp=window_bp,
        pooling="mean",
        files=(),
    )


class ToyEngine(Engine):
    """Classes vote by token id; a token's mask depends on its id, its left neighbour and the explained classes."""

    runtime, device, dtype = "toy", "cpu", "float32"

    def __init__(self, window_bp: int = 60, max_tokens: int = 64) -> None:
        super().__init__(toy_bundle(window_bp, max_tokens))
        self.shapes: list[tuple[int, int]] = []

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        self.shapes.append(input_ids.shape)
        valid = input_ids != 1
        sizes = [len(rank.labels) for rank in RANKS]
        votes = self._probs(input_ids, valid.astype(np.float64), sizes)
        called = np.stack([v.argmax(axis=1) for v in votes], axis=1)
        explained = np.where(explain_ids < 0, called, explain_ids).astype(np.int32)
        left = np.concatenate((np.zeros_like(input_ids[:, :1]), input_ids[:, :-1]), axis=1)
        masks = np.stack(
            [np.sin(input_ids * 0.7 + left * 0.3 + 5 * r + explained[:, r : r + 1]) ** 2 * valid for r in range(2)],
            axis=1,
        ).astype(np.float32)
        mask = masks.max(axis=1)
        masked = self._probs(input_ids, mask.astype(np.float64) * valid, sizes)
        return EngineOutput(
            mask,
            masks,
            explained,
            np.concatenate(votes, axis=1).astype(np.float32),
            np.concatenate(masked, axis=1).astype(np.float32),
        )

    @staticmethod
    def _probs(ids: Int32s, weight: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
        out = []
        for r, size in enumerate(sizes):
            votes = [
                np.cumsum(np.cos(ids * (c + 1.5) + r) * weight, axis=1) for c in range(size)
            ]  # one by one, in order
            score = np.stack([vote[:, -1] for vote in votes], axis=1)
            score = score / np.maximum((ids != 1).sum(axis=1, keepdims=True), 1) * 3
            part = np.exp(score)
            out.append(part / part.sum(axis=1, keepdims=True))
        return out


def run_toy(config: RunConfig, **options: Any) -> RunStats:
    """`api.run` on two toy engines."""
    return api.run(config, engines=[ToyEngine(), ToyEngine()], **options)
