"""ONNX Runtime on an NVIDIA GPU: one session per GPU, inputs and outputs bound to device memory of our own.

    OnnxCudaEngine, one per batch in flight: a Slot and an I/O binding; both engines of a GPU share the session

Every LSTM, convolution, attention and matrix product must have been placed on the GPU: ONNX Runtime leaves what it
cannot place on the CPU without a word. Not handled: CUDA graphs, the TensorRT provider inside ONNX Runtime, the
Attention operator of opset 24.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wyr_batch.bundle import Bundle
from wyr_batch.engines import onnx
from wyr_batch.engines.base import GPU_BATCH_TOKENS, Engine
from wyr_batch.engines.cuda import CudaDevice
from wyr_batch.engines.cuda_slot import Slot
from wyr_batch.engines.signature import INPUTS, EngineOutput, Int32s, engine_output, output_dtype, output_shapes
from wyr_batch.errors import EngineError, MissingExtraError, ModelError, UsageError

PROVIDER = "CUDAExecutionProvider"
HEAVY_OPS = ("MatMul", "Gemm", "Conv", "LSTM", "LayerNormalization", "Softmax")


def import_onnxruntime() -> Any:
    """Return onnxruntime with its CUDA provider.

    Raises: MissingExtraError without onnxruntime; UsageError if the one that is there is built for CPUs.
    """
    try:
        onnxruntime = onnx.import_onnxruntime()
    except MissingExtraError:
        raise MissingExtraError("--runtime onnx", "onnxruntime-gpu", "gpu") from None
    providers = onnxruntime.get_available_providers()
    if PROVIDER not in providers:
        raise UsageError(
            "--runtime onnx",
            f"an onnxruntime with {', '.join(providers)}",
            PROVIDER,
            "Run: pip uninstall -y onnxruntime && pip install 'wyr-batch[gpu]'",
        )
    return onnxruntime


def session_options(ort: Any) -> Any:
    """Return options for batches of many shapes, and for knowing where each node runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def provider_options(device_id: int) -> dict[str, str]:
    """Return options of the CUDA provider: memory taken as needed, float32 that is float32."""
    return {"device_id": str(device_id), "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}


def check_placement(session: Any, provider: str) -> None:
    """Raise ModelError unless every heavy operation runs on the provider.

    Raises: UsageError if this ONNX Runtime cannot tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise UsageError(
            "--runtime onnx",
            "an onnxruntime that cannot say where nodes run",
            "one that can",
            "Run: pip install -U 'wyr-batch[gpu]'",
        )
    strays = sorted(
        {
            f"{node.op_type} on {part.ep_name}"
            for part in session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
            if node.op_type in HEAVY_OPS and part.ep_name != provider
        }
    )
    if strays:
        raise ModelError("--runtime onnx", ", ".join(strays), f"all of it on {provider}")


class LoadedSession:
    """The bundle's ONNX file on one GPU."""

    def __init__(self, bundle: Bundle, dtype: str, device: CudaDevice, masked_calls: bool = True) -> None:
        """Load the file; without masked calls, without the second pass.

        Raises: MissingExtraError, UsageError; ModelError if the file is not proven or does not load; EngineError if
            the provider does not start, as without cuDNN.
        """
        ort = import_onnxruntime()
        self.device, self.masked_calls = device, masked_calls
        path = bundle.verified("onnx", dtype)
        ort.preload_dlls()  # the CUDA and cuDNN libraries of pip packages are on no search path
        providers = [(PROVIDER, provider_options(device.gpu.index))]
        try:
            options = session_options(ort)
            model = onnx.what_to_load(path, options, masked_calls)
            self.session = ort.InferenceSession(model, options, providers=providers)
        except ModelError:
            raise
        except Exception as error:  # onnxruntime raises types of its own
            raise ModelError(path, f"'{str(error)[:300]}'", "a graph ONNX Runtime can load") from error
        found = self.session.get_providers()
        if found[0] != PROVIDER:
            raise EngineError(
                "--runtime onnx",
                ", ".join(found),
                f"{PROVIDER}: its libraries did not load",
                "Run: pip install 'wyr-batch[gpu]' (it needs CUDA and cuDNN of the version it was built for)",
            )
        self.session.disable_fallback()
        check_placement(self.session, PROVIDER)


class OnnxCudaEngine(Engine):
    """One batch in flight through a session."""

    runtime = "onnx"
    pad_to = 8
    default_batch_tokens = GPU_BATCH_TOKENS
    has_thread = True

    def __init__(self, bundle: Bundle, dtype: str, loaded: LoadedSession) -> None:
        super().__init__(bundle, loaded.masked_calls)
        self.dtype, self.device = dtype, loaded.device.gpu.device
        self._loaded = loaded
        self._slot = Slot(loaded.device)
        self._binding = loaded.session.io_binding()

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        slot, binding = self._slot, self._binding
        self._loaded.device.use()
        index = self._loaded.device.gpu.index
        for name, values in zip(INPUTS, (input_ids, explain_ids), strict=True):
            binding.bind_input(name, "cuda", index, np.int32, values.shape, slot.send(name, values))
        sizes = (len(self.bundle.ranks), self.bundle.n_classes, self.masked_calls)
        for name, shape in output_shapes(len(input_ids), input_ids.shape[1], *sizes).items():
            dtype = output_dtype(name)
            binding.bind_output(name, "cuda", index, dtype, shape, slot.expect(name, shape, dtype))
        slot.wait()  # the session works on a stream of its own
        self._loaded.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return engine_output(slot.receive())

    def _make_room(self) -> None:
        self._slot.make_room()

    def _close(self) -> None:
        """Give back memory; the session goes with its last engine."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._slot.close()
