"""TensorRT on an NVIDIA GPU, native API: a plan per GPU, an execution context per batch in flight and length bucket.

    LoadedPlan   one per GPU, shared: runtime and engine (the weights)
    TensorRtEngine, one per batch in flight: a Slot (stream, buffers, scratch) and a context for each profile it met

Not handled: CUDA graphs, auxiliary streams set by hand, output shapes that depend on data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import GPU_BATCH_TOKENS, Engine
from wyr_batch.engines.cuda import CudaDevice
from wyr_batch.engines.cuda_slot import Slot
from wyr_batch.engines.signature import INPUTS, OUTPUTS, EngineOutput, Int32s, is_whole, output_dtype
from wyr_batch.engines.tensorrt_plan import LEAST_TOKENS, import_tensorrt, make_log, must, ready_plan
from wyr_batch.errors import EngineError


class LoadedPlan:
    """A plan deserialised on one GPU.

    Attributes:
        profiles: (fewest tokens, most tokens, most rows) of each profile, as the engine gives them.
    """

    def __init__(self, bundle: Bundle, dtype: str, device: CudaDevice) -> None:
        """Load the bundle's plan for the device from the cache, or build it.

        Raises: MissingExtraError, UsageError, ModelError, EngineError.
        """
        self.trt = trt = import_tensorrt()
        self.log = make_log(trt)
        self.device = device
        device.use()
        self.runtime = trt.Runtime(self.log)
        engine = self.runtime.deserialize_cuda_engine(ready_plan(trt, self.log, bundle, dtype, device.gpu))
        if engine is None:
            said = "; ".join(self.log.errors)[:200]
            why = f"the cached one could not be loaded: {said}"
            plan = ready_plan(trt, self.log, bundle, dtype, device.gpu, again=why)
            engine = must(self.runtime.deserialize_cuda_engine(plan), "loading a plan built just now", self.log)
        self.engine = engine
        self._check_tensors()
        shapes = [engine.get_tensor_profile_shape(INPUTS[0], k) for k in range(engine.num_optimization_profiles)]
        self.profiles = [(low[1], high[1], high[0]) for low, _, high in (map(tuple, three) for three in shapes)]

    def _check_tensors(self) -> None:
        """Raise EngineError unless names, directions and types are the contract's; types are not checked at run."""
        trt, engine = self.trt, self.engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        found = {name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names}
        inputs = dict.fromkeys(INPUTS, (trt.TensorIOMode.INPUT, trt.DataType.INT32))
        outputs = {
            name: (trt.TensorIOMode.OUTPUT, trt.DataType.INT32 if is_whole(name) else trt.DataType.FLOAT)
            for name in OUTPUTS
        }
        if found != {**inputs, **outputs}:
            raise EngineError("TensorRT", f"tensors {found}", inputs | outputs, "Export the bundle again.")

    def profile_for(self, n_tokens: int) -> int:
        """Return the profile that holds rows of so many tokens. Raises: EngineError."""
        for index, (least, most, _) in enumerate(self.profiles):
            if least <= n_tokens <= most:
                return index
        expected = f"{self.profiles[0][0]} to {self.profiles[-1][1]}"
        raise EngineError("TensorRT", f"rows of {n_tokens} tokens", expected, "Delete the plan cache, and report it.")


class TensorRtEngine(Engine):
    """One batch in flight through a plan."""

    runtime = "tensorrt"
    pad_to = LEAST_TOKENS
    default_batch_tokens = GPU_BATCH_TOKENS
    has_thread = True

    def __init__(self, bundle: Bundle, dtype: str, plan: LoadedPlan) -> None:
        super().__init__(bundle)
        self.dtype, self.device = dtype, plan.device.gpu.device
        self._plan = plan
        self._slot = Slot(plan.device)
        self._contexts: dict[int, Any] = {}

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        self._plan.device.use()
        index = self._plan.profile_for(input_ids.shape[1])
        n_pieces = -(-len(input_ids) // self._plan.profiles[index][2])
        pieces = zip(np.array_split(input_ids, n_pieces), np.array_split(explain_ids, n_pieces), strict=True)
        parts = [self._run(index, *piece) for piece in pieces]
        if len(parts) == 1:
            return parts[0]
        return EngineOutput._make(np.concatenate(values) for values in zip(*parts, strict=True))

    def _run(self, index: int, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        """Run rows that fit one profile."""
        slot, log = self._slot, self._plan.log
        context = self._context(index)
        for name, values in zip(INPUTS, (input_ids, explain_ids), strict=True):
            address = slot.send(name, values)
            must(context.set_input_shape(name, values.shape), f"setting {name} to {values.shape}", log)
            must(context.set_tensor_address(name, address), f"setting the address of {name}", log)
        if missing := context.infer_shapes():
            raise EngineError("TensorRT", f"no shape of {', '.join(missing)}", "one from the inputs")
        # What the plan needs depends on the shapes; one piece of memory serves all contexts of this slot in turn.
        needed = must(
            context.update_device_memory_size_for_shapes(), f"sizing scratch memory for {input_ids.shape}", log
        )
        context.set_device_memory(slot.scratch(needed), needed)
        for name in OUTPUTS:
            dtype = output_dtype(name)
            address = slot.expect(name, tuple(context.get_tensor_shape(name)), dtype)
            must(context.set_tensor_address(name, address), f"setting the address of {name}", log)
        must(context.execute_async_v3(slot.stream), f"running {input_ids.shape}", log)
        return EngineOutput(**slot.receive())

    def _context(self, index: int) -> Any:
        """Return this slot's context for a profile, made when it is first wanted."""
        if index not in self._contexts:
            trt, log = self._plan.trt, self._plan.log
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = must(self._plan.engine.create_execution_context(strategy), "making a context", log)
            chosen = context.set_optimization_profile_async(index, self._slot.stream)
            must(chosen, f"choosing profile {index}", log)
            self._slot.wait()
            self._contexts[index] = context
        return self._contexts[index]

    def _make_room(self) -> None:
        self._slot.make_room()

    def _close(self) -> None:
        """Give back contexts and memory; the plan goes with its last engine."""
        self._contexts.clear()
        self._slot.close()
