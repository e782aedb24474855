"""A tensorrt module that is stricter than the real one and computes what tests/toy_engine.py computes.

It has the names that the package uses and no others (tests/test_tensorrt_names.py compares them with the real
bindings). Whatever it returns instead of raising is a `Checked`, and `unchecked` lists those that nobody looked at. A
plan is JSON: version, profiles and flags; it loads only where the version is the same.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
from fake_cuda import FakeLibrary
from toy_engine import RANKS, ToyEngine

from wyr_batch.engines.signature import INPUTS, OUTPUTS


class Checked:
    """A bool that knows whether it has been looked at."""

    def __init__(self, fake: FakeTensorRt, value: bool, what: str) -> None:
        self._value, self._what, self._fake = value, what, fake
        fake.unchecked.append(what)

    def __bool__(self) -> bool:
        if self._what in self._fake.unchecked:
            self._fake.unchecked.remove(self._what)
        return self._value


class CheckedIndex(int):
    """An index, -1 for a failure, that counts as looked at once it is compared."""

    fake: FakeTensorRt

    def __ge__(self, other: int) -> bool:
        self.fake.unchecked.remove("add_optimization_profile")
        return int(self) >= other


class FakeTensorRt(types.ModuleType):
    """The module.

    Attributes:
        fail: name of a call that fails, as the real one does: False, None or -1.
        n_built: plans built so far.
        says: what is logged as an error when a call fails.
    """

    def __init__(self, library: FakeLibrary, version: str = "11.4.0.106") -> None:
        types.ModuleType.__init__(self, "tensorrt")
        self.__version__ = version
        self.library, self.unchecked = library, []
        self.fail, self.says, self.n_built = "", "it was told to", 0
        self.tensors = dict.fromkeys(INPUTS, "INT32") | {
            name: "INT32" if name == "explained_ids" else "FLOAT" for name in OUTPUTS
        }
        self.unchecked: list[str] = []
        self.last_plan: dict[str, Any] = {}
        fake = self

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2

            def __init__(self) -> None:
                self.ready = True

            def log(self, severity: int, msg: str) -> None:
                raise NotImplementedError

        class NetworkDefinitionCreationFlag(enum.IntEnum):
            STRONGLY_TYPED = 0 if version.startswith("11") else 1

        class BuilderFlag(enum.Enum):
            TF32 = 7

        class PreviewFeature(enum.Enum):
            RUNTIME_ACTIVATION_RESIZE_10_10 = 1

        class ProfilingVerbosity(enum.Enum):
            DETAILED = 2

        class TensorIOMode(enum.Enum):
            INPUT, OUTPUT = 1, 2

        class DataType(enum.Enum):
            FLOAT, INT32 = 0, 3

        class ExecutionContextAllocationStrategy(enum.Enum):
            USER_MANAGED = 2

        class IHostMemory(bytes):
            @property
            def nbytes(self) -> int:
                return len(self)

        class ITimingCache:
            def __init__(self, content: bytes) -> None:
                self._content = content

            def serialize(self) -> IHostMemory:
                return IHostMemory(b"timing " + self._content[:20])

        class ParserError:
            def node_name(self) -> str:
                return "node_7"

            def desc(self) -> str:
                return fake.says

        class INetworkDefinition:
            def __init__(self) -> None:
                self._path: Path | None = None

        class OnnxParser:
            def __init__(self, network: Any, logger: Any) -> None:
                assert logger.ready
                self._network = network

            def parse_from_file(self, model: str) -> Checked:
                assert Path(model).is_file()
                self._network._path = Path(model)
                return fake.checked("parse_from_file")

            @property
            def num_errors(self) -> int:
                return 1

            def get_error(self, index: int) -> ParserError:
                return ParserError()

        class IOptimizationProfile:
            def __init__(self) -> None:
                self._shapes: dict[str, list[list[int]]] = {}

            def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
                assert input in INPUTS
                assert len(min) == len(opt) == len(max) == 2
                assert all(0 < a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
                self._shapes[input] = [list(min), list(opt), list(max)]

        class IBuilderConfig:
            def __init__(self) -> None:
                self.builder_optimization_level = -1
                self.profiling_verbosity: Any = None
                self._tf32, self._shrinks = True, False
                self._profiles: list[dict[str, Any]] = []
                self._cache: Any = None

            def clear_flag(self, flag: Any) -> None:
                assert flag is BuilderFlag.TF32
                self._tf32 = False

            def set_preview_feature(self, feature: Any, enable: bool) -> None:
                assert feature is PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10
                self._shrinks = enable

            def add_optimization_profile(self, profile: IOptimizationProfile) -> CheckedIndex:
                assert set(profile._shapes) == set(INPUTS), "a profile without a shape for every input is invalid"
                self._profiles.append(profile._shapes)
                index = CheckedIndex(-1 if fake.fail == "add_optimization_profile" else len(self._profiles) - 1)
                index.fake = fake
                fake.unchecked.append("add_optimization_profile")
                return index

            def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
                return ITimingCache(serialized_timing_cache)

            def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> Checked:
                fits = cache._content != b"of another GPU"
                if fits:
                    self._cache = cache
                return Checked(fake, fits and fake.fail != "set_timing_cache", "set_timing_cache")

            def get_timing_cache(self) -> ITimingCache:
                return self._cache

        class Builder:
            def __init__(self, logger: Any) -> None:
                assert logger.ready
                self._log = logger
                fake.log = logger

            def create_network(self, flags: int = 0) -> INetworkDefinition:
                assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED), "not strongly typed"
                return INetworkDefinition()

            def create_builder_config(self) -> IBuilderConfig:
                return IBuilderConfig()

            def create_optimization_profile(self) -> IOptimizationProfile:
                return IOptimizationProfile()

            def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
                assert config._cache is not None
                assert network._path is not None
                fake.n_built += 1
                if fake.fail == "build_serialized_network":
                    self._log.log(ILogger.ERROR, fake.says)
                    return None
                fake.last_plan = {
                    "version": version,
                    "onnx": hashlib.sha256(network._path.read_bytes()).hexdigest(),
                    "tf32": config._tf32,
                    "shrinks": config._shrinks,
                    "profiles": config._profiles,
                    "level": config.builder_optimization_level,
                }
                return IHostMemory(json.dumps(fake.last_plan).encode())

        class IExecutionContext:
            def __init__(self, engine: ICudaEngine) -> None:
                self._engine = engine
                self._profile: dict[str, Any] | None = None
                self._shapes: dict[str, tuple[int, ...]] = {}
                self._addresses: dict[str, int] = {}
                self._memory: tuple[int, int] | None = None

            def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> Checked:
                assert stream_handle in fake.library.enqueued, "a stream that is not there"
                self._profile = self._engine._profiles[profile_index]
                return fake.checked("set_optimization_profile_async")

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> Checked:
                assert self._profile is not None
                within = name in INPUTS
                if within:
                    low, _, high = self._profile[name]
                    within = all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
                if within:
                    self._shapes[name] = tuple(shape)
                return fake.checked("set_input_shape", within)

            def set_tensor_address(self, name: str, memory: int) -> Checked:
                self._addresses[name] = memory
                return fake.checked("set_tensor_address", name in fake.tensors)

            def infer_shapes(self) -> list[str]:
                return [name for name in INPUTS if name not in self._shapes or fake.fail == "infer_shapes"]

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                rows, n_tokens = self._shapes["input_ids"]
                n_ranks, n_classes = len(RANKS), sum(len(rank.labels) for rank in RANKS)
                probs = (rows, n_classes)
                shapes = ((rows, n_tokens), (rows, n_ranks, n_tokens), (rows, n_ranks), probs, probs)
                return dict(zip(OUTPUTS, shapes, strict=True))[name]

            def update_device_memory_size_for_shapes(self) -> int:
                self._memory = None
                if fake.fail == "update_device_memory_size_for_shapes":
                    return 0
                assert self._profile is not None
                most = self._profile["input_ids"][2]
                return 64 * math.prod(self._shapes["input_ids"] if self._engine._shrinks else most)

            def set_device_memory(self, memory: int, size: int) -> None:
                assert fake.library.holds(memory, size, fake.library.device_memory) is not None
                self._memory = (memory, size)

            def execute_async_v3(self, stream_handle: int) -> Checked:
                assert self._memory is not None
                assert self._memory[1] >= 64 * math.prod(self._shapes["input_ids"])
                arrays, used = {}, set()
                for name in fake.tensors:
                    shape = self._shapes[name] if name in INPUTS else self.get_tensor_shape(name)
                    n_bytes = 4 * math.prod(shape)
                    start = fake.library.holds(self._addresses[name], n_bytes, fake.library.device_memory)
                    assert start is not None, f"{name} lies outside of what is allocated"
                    used.add(start)
                    raw = (ctypes.c_byte * n_bytes).from_address(self._addresses[name])
                    dtype = np.int32 if fake.tensors[name] == "INT32" else np.float32
                    arrays[name] = np.frombuffer(memoryview(raw), dtype).reshape(shape)

                def work() -> None:
                    toy = ToyEngine()._infer(arrays["input_ids"], arrays["explain_ids"])
                    for name, values in toy._asdict().items():
                        arrays[name][...] = values

                return fake.checked("execute_async_v3", fake.library.enqueue(stream_handle, used, work) == 0)

        class EngineInspector:
            def get_engine_information(self, format: Any) -> str:
                return json.dumps({"Layers": ["mha"]})

        class LayerInformationFormat(enum.Enum):
            JSON = 1

        class ICudaEngine:
            def __init__(self, plan: dict[str, Any]) -> None:
                self._profiles, self._shrinks = plan["profiles"], plan["shrinks"]

            @property
            def num_io_tensors(self) -> int:
                return len(fake.tensors)

            @property
            def num_optimization_profiles(self) -> int:
                return len(self._profiles)

            def get_tensor_name(self, index: int) -> str:
                return list(fake.tensors)[index]

            def get_tensor_mode(self, name: str) -> TensorIOMode:
                return TensorIOMode.INPUT if name in INPUTS else TensorIOMode.OUTPUT

            def get_tensor_dtype(self, name: str) -> DataType:
                return DataType[fake.tensors[name]]

            def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
                return [tuple(shape) for shape in self._profiles[profile_index][name]]

            def create_execution_context(self, strategy: Any) -> Any:
                assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
                return None if fake.fail == "create_execution_context" else IExecutionContext(self)

            def create_engine_inspector(self) -> EngineInspector:
                return EngineInspector()

        class Runtime:
            def __init__(self, logger: Any) -> None:
                assert logger.ready
                self._log = logger
                fake.log = logger

            def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
                plan = json.loads(serialized_engine)
                if plan["version"] != version or fake.fail == "deserialize_cuda_engine":
                    self._log.log(ILogger.ERROR, f"Serialization assertion: {fake.says}")
                    return None
                return ICudaEngine(plan)

        for kind in list(locals().values()):
            if isinstance(kind, type):
                setattr(self, kind.__name__, kind)

    def checked(self, what: str, good: bool = True) -> Checked:
        good = good and self.fail != what
        if not good:
            self.log.log(1, self.says)
        return Checked(self, good, what)
