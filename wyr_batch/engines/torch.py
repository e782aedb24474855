"""Torch eager from the checkpoint: the float32 reference on the CPU, and on a GPU a rival to TensorRT.

    LoadedModel   one per device, shared: the fused module with its weights
    TorchEngine, one per batch in flight: on a GPU a stream and pinned buffers, on the CPU the same code without them

On a GPU the encoder's attention is one of torch's fused kernels, and the Explainer's LSTMs are cuDNN's, both
directions in one. What torch keeps for the process is set while an engine is open on a GPU; see `_Switches`. Not
handled: CUDA graphs and torch.compile; batches of tens of thousands of tokens keep a GPU busy for longer than their
launches take.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy.typing as npt

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import GPU_BATCH_TOKENS, Engine
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.errors import MissingExtraError, UsageError


def import_torch(device: str) -> Any:
    """Return torch.

    Raises: MissingExtraError without it; UsageError if a GPU is asked for and torch is built without CUDA, or sees
        none.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("--runtime torch", "torch", "export") from None
    if device != "cpu" and not torch.cuda.is_available():
        raise UsageError(
            "--runtime torch",
            f"torch {torch.__version__}, which sees no GPU",
            "one built for CUDA",
            "See https://pytorch.org for the command that installs it, and leave constraints.txt out.",
        )
    return torch


class _Switches:
    """Switches of torch that are the whole process's: set as the first engine opens on a GPU, put back after the last.

    TF32 is off: the Explainer and float32 are float32. cuDNN's attention is off: with a mask it makes a plan for every
    shape in every thread, which takes tens of milliseconds. `torch.nn.attention.sdpa_kernel` sets the same switches for
    the process, so around each batch one thread would put them back while another runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_open = 0
        self._before = (True, True, True)

    def hold(self, torch: Any) -> None:
        with self._lock:
            if not self._n_open:
                cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
                self._before = (cuda.matmul.allow_tf32, cudnn.allow_tf32, cuda.cudnn_sdp_enabled())
                self._set(torch, (False, False, False))
            self._n_open += 1

    def let_go(self, torch: Any) -> None:
        with self._lock:
            self._n_open -= 1
            if not self._n_open:
                self._set(torch, self._before)

    @staticmethod
    def _set(torch: Any, values: tuple[bool, bool, bool]) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = values[:2]
        torch.backends.cuda.enable_cudnn_sdp(values[2])


_switches = _Switches()


class LoadedModel:
    """A bundle's checkpoint on one device, in one precision."""

    def __init__(self, bundle: Bundle, dtype: str, device: str, threads: int) -> None:
        """Load the checkpoint.

        Args:
            device: 'cpu', where parity.json must prove half precisions, or 'cuda:N', proven at its first use.
            threads: of the CPU.
        Raises: MissingExtraError, UsageError, ModelError.
        """
        self.torch = torch = import_torch(device)
        from wyr_batch.models.checkpoints import load_explainer, load_explanandum
        from wyr_batch.models.fused import Fused
        from wyr_batch.models.precision import in_precision

        checkpoint = bundle.proven("torch", dtype) if device == "cpu" else bundle.checkpoint()
        self.device = torch.device(device)
        explanandum, _ = load_explanandum(checkpoint / "explanandum")
        explainer = load_explainer(checkpoint / "explainer")
        if device == "cpu":
            torch.set_num_threads(threads)
        else:
            explainer.prepare_for_gpu()
        self.module = in_precision(Fused(explanandum, explainer).eval(), dtype).to(self.device)


class TorchEngine(Engine):
    """One batch in flight through a model."""

    runtime = "torch"

    def __init__(self, bundle: Bundle, dtype: str, model: LoadedModel, masked_calls: bool = True) -> None:
        super().__init__(bundle, masked_calls)
        self.dtype, self.device = dtype, str(model.device)
        self._model, self._torch = model, model.torch
        self._on_gpu = model.device.type == "cuda"
        if self._on_gpu:
            self.pad_to, self.default_batch_tokens, self.has_thread = 8, GPU_BATCH_TOKENS, True
        self._stream = self._torch.cuda.Stream(model.device) if self._on_gpu else None
        self._buffers: dict[str, Any] = {}
        if self._on_gpu:
            _switches.hold(self._torch)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        torch = self._torch
        with torch.inference_mode(), torch.cuda.stream(self._stream) if self._on_gpu else nullcontext():
            there = self._there("input_ids", input_ids), self._there("explain_ids", explain_ids)
            out = self._model.module(*there, masked_calls=self.masked_calls)
            back = [self._back(name, tensor) for name, tensor in out._asdict().items()]
            if self._stream is not None:
                self._stream.synchronize()
            return EngineOutput._make(self._array(tensor) for tensor in back)

    def _there(self, name: str, values: Int32s) -> Any:
        """Return the array as a tensor on the device; through pinned memory where it is a GPU."""
        tensor = self._torch.from_numpy(values)
        if not self._on_gpu:
            return tensor
        pinned = self._pinned(name, tensor)
        pinned.copy_(tensor)
        return pinned.to(self._model.device, non_blocking=True)

    def _back(self, name: str, tensor: Any) -> Any:
        """Start bringing a tensor to the host; done when the stream is."""
        if not self._on_gpu:
            return tensor
        pinned = self._pinned(name, tensor)
        pinned.copy_(tensor, non_blocking=True)
        return pinned

    def _array(self, tensor: Any) -> npt.NDArray[Any]:
        """Return a tensor on the host as an array; a copy where the memory is used again."""
        array: npt.NDArray[Any] = tensor.numpy()
        return array.copy() if self._on_gpu else array

    def _pinned(self, name: str, like: Any) -> Any:
        """Return pinned memory of a tensor's shape and type, part of a buffer that grows on demand."""
        held = self._buffers.get(name)
        if held is None or held.numel() < like.numel():
            held = self._buffers[name] = self._torch.empty(like.numel(), dtype=like.dtype, pin_memory=True)
        return held[: like.numel()].view(like.shape)

    def _make_room(self) -> None:
        self._buffers.clear()
        if self._on_gpu:
            self._torch.cuda.empty_cache()

    def _close(self) -> None:
        """Give back buffers; the model goes with its last engine."""
        self._buffers.clear()
        if self._on_gpu:
            _switches.let_go(self._torch)
