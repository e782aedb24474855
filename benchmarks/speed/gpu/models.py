"""A part of the GPU kit: the bundles that the others run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.kit import timed
from benchmarks.published_size import RANKS, make_checkpoints
from benchmarks.speed.gpu.machine import FreshBundle, Machine, need_torch
from wyr_batch.bundle import BundleFile, bundle_json, load_bundle, sha256_of, starter_path


def models(machine: Machine) -> dict[str, Any]:
    """Make the bundles: the starter, and the published size with random weights; with graphs where onnx is there."""
    need_torch()
    from wyr_batch.models.encoder import EncoderConfig

    small = EncoderConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    make_checkpoints(machine.folder / "full_size" / "checkpoint", small if machine.quick else None)
    shutil.copytree(starter_path() / "checkpoint", machine.folder / "starter" / "checkpoint")
    starter, made = load_bundle(), {}
    for name, ranks, pooling in (("starter", starter.ranks, starter.pooling), ("full_size", RANKS, "mean")):
        folder = machine.folder / name
        graphs = make_graphs(machine, name)
        files = [
            BundleFile(path.relative_to(folder).as_posix(), sha256_of(path), dtype_of(path), kind_of(path))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        text = bundle_json(
            name=name,
            ranks=ranks,
            max_tokens=64 if machine.quick else starter.max_tokens,
            window_bp=378 if machine.quick else starter.window_bp,
            pooling=pooling,
            files=files,
            training={},
            metrics={},
            licence="",
        )
        (folder / "bundle.json").write_text(text)
        loaded = load_bundle(folder)
        machine.bundles[name] = FreshBundle(**{key: value for key, value in vars(loaded).items() if key != "sha256"})
        made[name] = {**graphs, "files": {file.path: file.dtype for file in files if file.kind == "onnx"}}
    return made


def make_graphs(machine: Machine, name: str) -> dict[str, Any]:
    """Export a model's graphs beside its checkpoint, in the dry run none; returns how that went."""
    folder = machine.folder / name
    if machine.quick:
        if name == "starter":
            shutil.copy(starter_path() / "model.onnx", folder)
        return {"graphs": "left out of the dry run, but for the one the starter comes with"}
    try:
        return {"graphs_s": round(timed(lambda: write_graphs(folder)).wall_s, 1)}
    except ImportError as error:
        return {"graphs": f"skipped: no package {error.name}; only torch can be measured"}


def write_graphs(folder: Path) -> None:
    """Export a checkpoint as model.onnx and model.fp16.onnx. Raises: ImportError without the exporter's packages."""
    import onnx  # noqa: F401 - what the exporter needs, asked for first
    import onnxscript  # noqa: F401
    from wyr_batch.export.graph import graph_module
    from wyr_batch.export.onnx_file import onnx_from_torch

    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    explanandum, _ = load_explanandum(folder / "checkpoint" / "explanandum")
    explainer = load_explainer(folder / "checkpoint" / "explainer")
    for dtype, name in (("float32", "model.onnx"), ("float16", "model.fp16.onnx")):
        module = graph_module(explanandum, explainer, load_bundle().max_tokens, dtype)
        onnx_from_torch(module, folder / name)


def kind_of(path: Path) -> str:
    return "onnx" if path.suffix == ".onnx" else "checkpoint"


def dtype_of(path: Path) -> str:
    return "float16" if path.name == "model.fp16.onnx" else "float32"
