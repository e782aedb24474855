"""Torch eager on the CPU: the float32 reference, slower than the exported graph; half precisions for comparison."""

from __future__ import annotations

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine, EngineOutput, Int32s
from wyr_batch.errors import MissingExtraError


class TorchEngine(Engine):
    """Runs a bundle's checkpoint."""

    runtime = "torch"
    device = "cpu"

    def __init__(self, bundle: Bundle, dtype: str, threads: int) -> None:
        super().__init__(bundle)
        self.dtype = dtype
        try:
            import torch

            from wyr_batch.models.checkpoints import load_explainer, load_explanandum
            from wyr_batch.models.fused import Fused
            from wyr_batch.models.precision import in_precision
        except ImportError as error:
            raise MissingExtraError("--runtime torch", error.name or "torch", "export") from None
        checkpoint = bundle.proven("torch", dtype)
        torch.set_num_threads(threads)
        explanandum, _ = load_explanandum(checkpoint / "explanandum")
        explainer = load_explainer(checkpoint / "explainer")
        self._torch = torch
        self._model = in_precision(Fused(explanandum, explainer).eval(), dtype)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        torch = self._torch
        with torch.inference_mode():
            out = self._model(torch.from_numpy(input_ids), torch.from_numpy(explain_ids))
        return EngineOutput(*(tensor.numpy() for tensor in out))
