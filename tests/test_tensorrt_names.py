"""Names and signatures that the TensorRT code and its stand-in use are those of the real bindings, 10.12 to 11.4."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import FakeLibrary
from fake_tensorrt import FakeTensorRt

ROOT = Path(__file__).parents[1]
REAL = json.loads((ROOT / "tests" / "data" / "tensorrt_names.json").read_text())["versions"]
SOURCES = ("wyr_batch/engines/tensorrt_plan.py", "wyr_batch/engines/tensorrt.py", "benchmarks/speed/gpu/engines.py")
# Names of variables and attributes in the sources, and the class of what they hold.
HELD = {
    "builder": "Builder",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "shapes": "IOptimizationProfile",
    "cache": "ITimingCache",
    "measured": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}


def uses() -> list[tuple[str, str, str]]:
    """Return (file, class, member) of every use in the sources."""
    found = []
    for source in SOURCES:
        tree: ast.AST = ast.parse((ROOT / source).read_text())
        if source.startswith("benchmarks"):
            (tree,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "plan_layers")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            words = ast.unparse(node).split(".")
            if "trt" in words and words[-1] != "trt":
                after = words[words.index("trt") + 1 :]
                found += [(source, after[0], after[1] if len(after) > 1 else "")]
            elif len(words) > 1 and words[-2] in HELD and words[0] != "bundle":
                found.append((source, HELD[words[-2]], words[-1]))
    return found


@pytest.mark.parametrize("version", REAL)
def test_the_sources_use_names_that_are_there(version: str) -> None:
    assert {kind for _, kind, _ in uses()} > {"Builder", "IBuilderConfig", "ICudaEngine", "IExecutionContext"}
    for source, kind, member in uses():
        if kind != "__version__":
            assert kind in REAL[version], (source, kind)
            assert not member or member in REAL[version][kind], (source, kind, member)


@pytest.mark.parametrize("version", REAL)
def test_the_stand_in_has_no_other_names_and_the_same_parameters(version: str) -> None:
    fake = FakeTensorRt(FakeLibrary(), version)
    kinds: dict[str, Any] = {name: value for name, value in vars(fake).items() if isinstance(value, type)}
    assert set(kinds) - {"INetworkDefinition"} <= set(REAL[version])
    n_compared = 0
    for name, kind in kinds.items():
        for member, value in vars(kind).items():
            if member.startswith("_") or name == "INetworkDefinition":
                continue
            assert member in REAL[version][name], (name, member)
            overloads = REAL[version][name][member]
            if inspect.isfunction(value) and overloads:
                ours = [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
                assert ours in overloads, (name, member)
                n_compared += 1
    assert n_compared > 20
