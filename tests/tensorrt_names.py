"""Write down the names and signatures of TensorRT's Python bindings that this package relies on.

The bindings need NVIDIA's libraries to be imported, but no GPU and nothing of them to be asked for names: three empty
libraries will do.

    pip download --no-deps --only-binary=:all: tensorrt-cu13-bindings==11.4.0.106 && unzip tensorrt_cu13_bindings-*.whl
    printf '#define S(n) void *n(void) { return 0; }\\nS(createInferBuilder_INTERNAL) S(createInferRefitter_INTERNAL)\\n
    S(createInferRuntime_INTERNAL) S(createNvOnnxParserRefitter_INTERNAL) S(createNvOnnxParser_INTERNAL)\\n
    S(getBuilderPluginRegistry) S(getPluginRegistry) S(initLibNvInferPlugins)\\n
    int getNvOnnxParserVersion(void) { return 0; }\\n' > stub.c
    for name in nvinfer nvonnxparser nvinfer_plugin; do gcc -shared -fPIC -o lib$name.so.11 stub.c; done
    LD_LIBRARY_PATH=. PYTHONPATH=. python tests/tensorrt_names.py tests/data/tensorrt_names.json     # one version more

(`.so.10` for 10.x.) With the whole TensorRT installed, the last line alone does it.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

# What the package and the tests' stand-in name, by class; enumerations by member.
NAMES = {
    "Builder": "create_network create_builder_config create_optimization_profile build_serialized_network",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "OnnxParser": "parse_from_file num_errors get_error",
    "ParserError": "node_name desc",
    "IBuilderConfig": "builder_optimization_level profiling_verbosity clear_flag add_optimization_profile "
    "set_preview_feature create_timing_cache set_timing_cache get_timing_cache",
    "BuilderFlag": "TF32",
    "PreviewFeature": "RUNTIME_ACTIVATION_RESIZE_10_10",
    "ProfilingVerbosity": "DETAILED",
    "IOptimizationProfile": "set_shape",
    "ITimingCache": "serialize",
    "IHostMemory": "nbytes",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_profile_shape "
    "num_optimization_profiles create_execution_context create_engine_inspector",
    "TensorIOMode": "INPUT OUTPUT",
    "DataType": "INT32 FLOAT",
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
    "IExecutionContext": "set_optimization_profile_async set_input_shape set_tensor_address infer_shapes "
    "update_device_memory_size_for_shapes set_device_memory get_tensor_shape execute_async_v3",
    "EngineInspector": "get_engine_information",
    "LayerInformationFormat": "JSON",
    "ILogger": "INTERNAL_ERROR ERROR WARNING log",
}
CONSTRUCTORS = ("Builder", "OnnxParser", "Runtime", "ILogger")


def overloads(member: Any) -> list[list[str]]:
    """Return the parameter names of each overload of a bound function, `self` left out; none of a property."""
    text = inspect.getdoc(member) or ""
    found = re.findall(r"^(?:\d+\. )?\w+\(self: [\w.:]+(.*)\) -> ", text, flags=re.MULTILINE)
    return [re.findall(r", (\w+): ", parameters) for parameters in found]


def names_of(trt: Any) -> dict[str, Any]:
    """Return class -> member -> parameter names of its overloads. A name that is not there is left out."""
    found: dict[str, Any] = {}
    for name, members in NAMES.items():
        holder = getattr(trt, name, None)
        wanted = [*members.split(), *(["__init__"] if name in CONSTRUCTORS else [])]
        found[name] = {m: overloads(getattr(holder, m)) for m in wanted if hasattr(holder, m)}
    return found


def main() -> None:
    try:
        import tensorrt as trt
    except ImportError:
        import tensorrt_bindings as trt
    path = Path(sys.argv[1])
    content = json.loads(path.read_text()) if path.exists() else {"made_by": "tests/tensorrt_names.py", "versions": {}}
    content["versions"][trt.__version__] = names_of(trt)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
