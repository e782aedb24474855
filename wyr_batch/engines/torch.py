"""Torch from the checkpoint: the float32 reference on the CPU, and on a GPU a rival to TensorRT.

    LoadedModel   one per device: the fused module with its weights, on a GPU in the form of models/gpu/fused.py
    TorchEngine   one per device: on a GPU with two slots, each a batch in flight

On a GPU the next batch is enqueued before the one before is waited for, by one thread: two threads would take turns at
Python's lock. When a model is loaded on a GPU, plain torch, the kernels of wyr_batch/kernels (`WYR_KERNELS=off`: not)
and torch.compile (`WYR_COMPILE=on`) are compared and timed on it, and the fastest that is right is used. What
torch keeps for the process is set meanwhile, and while an engine is open on a GPU; see `_Switches`. Not handled: CUDA
graphs, for batches of tens of thousands of tokens keep a GPU busy for longer than their launches take; ragged rows
without padding (torch.nn.attention.varlen).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import TORCH_GPU_BATCH_TOKENS, Engine
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from wyr_batch.models.explainer import Explainer
    from wyr_batch.models.explanandum import Explanandum
    from wyr_batch.models.fused import Fused

logger = logging.getLogger(__name__)

# Of one function: two for each GPU and model. Beyond torch's own limit of 8 it compiles no more, and hardly says so.
MOST_GRAPHS = 64
TIMED = (128, 256)  # rows and tokens that an Explainer's ways are timed on


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


def _may_compile() -> bool:
    """The compiler takes long at every start, and has been slower than the kernels: only if it is asked for."""
    return os.environ.get("WYR_COMPILE", "off") == "on"


def gpu_version() -> str:
    """Return torch's version, and what else decides which kernels a GPU runs. Raises: as `import_torch`."""
    parts = [str(import_torch("cuda").__version__)]
    from wyr_batch.kernels import choose as kernels

    parts += [f"Triton {kernels.triton_version()}"] if kernels.wanted() else []
    parts += ["compiled"] if _may_compile() else []
    return ", ".join(parts)


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

    @contextmanager
    def held(self, torch: Any) -> Iterator[None]:
        self.hold(torch)
        try:
            yield
        finally:
            self.let_go(torch)

    @staticmethod
    def _set(torch: Any, values: tuple[bool, bool, bool]) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = values[:2]
        torch.backends.cuda.enable_cudnn_sdp(values[2])


_switches = _Switches()


@contextmanager
def _choosing(torch: Any, device: Any) -> Iterator[None]:
    """Let ways be compared as engines will run them; where memory does not suffice for that, torch's own are taken."""
    with _switches.held(torch), torch.cuda.device(device):
        try:
            yield
        except torch.OutOfMemoryError as error:
            words = str(error).partition("\n")[0][:200]
            logger.warning(
                "kernels: no memory on %s to compare them (%s): going on without, more slowly", device, words
            )
    torch.cuda.empty_cache()  # what was compared lies in the default stream's pool, from which no batch takes


def gpu_form(
    torch: Any, explanandum: Explanandum, explainer: Explainer, dtype: str, max_tokens: int, device: Any
) -> Fused:
    """Return loaded models on a GPU; Nucleotide Transformers in a GPU's form, by the fastest ways that are right there.

    Other families compute as they do on a CPU; their Explainers have the same choice.
    """
    from wyr_batch.kernels import choose as kernels
    from wyr_batch.models.families.nt import NtExplanandum
    from wyr_batch.models.fused import Fused
    from wyr_batch.models.gpu.fused import GpuFused
    from wyr_batch.models.precision import in_precision

    if not isinstance(explanandum, NtExplanandum):
        explainer.prepare_for_gpu()
        other = in_precision(Fused(explanandum, explainer).eval(), dtype).to(device)
        if kernels.wanted():
            with _choosing(torch, device), torch.inference_mode():
                other.explainer.choose_kernels(kernels.gpu_seconds, TIMED)
        return other
    module = GpuFused(explanandum, explainer, getattr(torch, dtype), max_tokens).to(device)
    if _may_compile():
        from torch._dynamo import config

        config.recompile_limit = max(MOST_GRAPHS, config.recompile_limit)
    with _choosing(torch, device):
        module.choose_ways(torch.compile if _may_compile() else None, kernels.wanted())
    return module


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
        self.module: Fused
        if device == "cpu":
            torch.set_num_threads(threads)
            self.module = in_precision(Fused(explanandum, explainer).eval(), dtype)
        else:
            self.module = gpu_form(torch, explanandum, explainer, dtype, bundle.max_tokens, self.device)


class _Slot:
    """What one batch in flight on a GPU has of its own: two streams and pinned buffers."""

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch, self._device = torch, device
        self.stream, self._side = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._buffers: dict[str, Any] = {}

    def aside(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Enqueue work beside what this slot's stream does from now on; return what makes the stream wait for it.

        What the work reads is held until it is waited for. What it has made is marked as used by the slot's stream:
        torch has 32 streams for all, so another slot's may be the same, and would take the memory again too soon.
        """
        self._side.wait_stream(self.stream)
        with self._torch.cuda.stream(self._side):
            result = work()

        def wait() -> Any:
            self.stream.wait_stream(self._side)
            if result is not None and result.is_cuda:
                result.record_stream(self.stream)
            return result

        return wait

    def there(self, name: str, values: Int32s) -> Any:
        """Start copying an array to the device, through pinned memory; return the tensor there."""
        tensor = self._torch.from_numpy(values)
        pinned = self._pinned(name, tensor)
        pinned.copy_(tensor)
        return pinned.to(self._device, non_blocking=True)

    def back(self, name: str, tensor: Any) -> Any:
        """Start copying a tensor to pinned memory; it is there when the stream has been waited for."""
        pinned = self._pinned(name, tensor)
        pinned.copy_(tensor, non_blocking=True)
        return pinned

    def _pinned(self, name: str, like: Any) -> Any:
        """Return pinned memory of a tensor's shape and type, part of a buffer that grows on demand."""
        held = self._buffers.get(name)
        if held is None or held.numel() < like.numel():
            held = self._buffers[name] = self._torch.empty(like.numel(), dtype=like.dtype, pin_memory=True)
        return held[: like.numel()].view(like.shape)


class TorchEngine(Engine):
    """A model, and on a GPU the batches in flight through it."""

    runtime = "torch"

    def __init__(
        self, bundle: Bundle, dtype: str, model: LoadedModel, masked_calls: bool = True, in_flight: int = 2
    ) -> None:
        """
        Args:
            in_flight: on a GPU, batches that are best started before the first is waited for.
        """
        super().__init__(bundle, masked_calls)
        self.dtype, self.device = dtype, str(model.device)
        self._model, self._torch = model, model.torch
        self._on_gpu = model.device.type == "cuda"
        self._in_gpu_form = hasattr(model.module, "choose_ways")  # a GpuFused, which is told more of a batch
        self._idle: list[_Slot] = []
        if self._on_gpu:
            self.pad_to, self.pads_equal_rows, self.in_flight = 8, not self._in_gpu_form, in_flight
            self.default_batch_tokens, self.has_thread = TORCH_GPU_BATCH_TOKENS, True
            _switches.hold(self._torch)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        torch = self._torch
        with torch.inference_mode():
            there = torch.from_numpy(input_ids), torch.from_numpy(explain_ids)
            out = self._model.module(*there, masked_calls=self.masked_calls)
        return EngineOutput._make(tensor.numpy() for tensor in out)

    def _start(self, input_ids: Int32s, explain_ids: Int32s) -> Any:
        """Enqueue a batch on a GPU; on the CPU, run it."""
        if not self._on_gpu:
            return super()._start(input_ids, explain_ids)
        torch = self._torch
        slot = self._idle.pop() if self._idle else _Slot(torch, self._model.device)
        options: dict[str, Any] = {"masked_calls": self.masked_calls}
        if self._in_gpu_form:
            options["padded"] = bool((input_ids[:, -1] == self.bundle.vocabulary.pad_id).any())
            options["aside"] = slot.aside
        with torch.inference_mode(), torch.cuda.stream(slot.stream):
            ids, asked = slot.there("input_ids", input_ids), slot.there("explain_ids", explain_ids)
            out = self._model.module(ids, asked, **options)
            return slot, [slot.back(name, tensor) for name, tensor in out._asdict().items()]

    def _finish(self, handle: Any) -> EngineOutput:
        if not self._on_gpu:
            return super()._finish(handle)
        slot, back = handle
        slot.stream.synchronize()
        out = EngineOutput._make(tensor.numpy().copy() for tensor in back)
        self._idle.append(slot)
        return out

    def _make_room(self) -> None:
        self._idle.clear()
        if self._on_gpu:
            self._torch.cuda.empty_cache()

    def _close(self) -> None:
        """Give back streams and buffers; the model goes with its last engine."""
        self._idle.clear()
        if self._on_gpu:
            _switches.let_go(self._torch)
