"""An engine of no cost: outputs made once and handed out again. For benchmarks of everything around the engine."""

from __future__ import annotations

import numpy as np

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import EngineOutput, Int32s

N_VALUES, MOST_SHAPES = 1 << 23, 64


class StandIn(Engine):
    """Gives batches random masks, and those of one shape the same probabilities."""

    runtime, device, dtype = "stand-in", "cpu", "float32"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._random = np.random.default_rng(1)
        self._values = self._random.beta(0.3, 0.3, N_VALUES).astype(np.float32)  # like masks: most near 0 or 1
        self._made: dict[tuple[int, ...], EngineOutput] = {}

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        if input_ids.shape not in self._made:
            if len(self._made) > MOST_SHAPES:
                self._made.clear()
            self._made[input_ids.shape] = self._make(*input_ids.shape)
        start = int(self._random.integers(len(self._values) - input_ids.size))
        mask = self._values[start : start + input_ids.size].reshape(input_ids.shape)
        return self._made[input_ids.shape]._replace(mask=mask)

    def _make(self, n_rows: int, n_tokens: int) -> EngineOutput:
        ranks = self.bundle.ranks
        masks = np.resize(self._values[: 1 << 20], (n_rows, len(ranks), n_tokens))
        probs = self._random.random((n_rows, self.bundle.n_classes), np.float32)
        first, best = 0, []
        for rank in ranks:
            best.append(probs[:, first : first + len(rank.labels)].argmax(axis=1))
            first += len(rank.labels)
        explained = np.stack(best, axis=1).astype(np.int32)
        return EngineOutput(masks[:, 0], masks, explained, probs, probs[::-1].copy())
