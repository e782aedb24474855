"""Parts of the GPU kit: the bundles and reads that the others run, and the graphs of those bundles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wyr_batch.export.bundle_json import bundle_json

from benchmarks.kit import timed, write_reads
from benchmarks.published_size import RANKS, READ_BP, make_checkpoints
from benchmarks.speed.gpu.machine import Machine, Skipped, need_torch
from wyr_batch.bundle import Bundle, BundleFile, load_bundle, sha256_of, starter_path

PAPER_READS = 103_638
MODELS = ("full_size", "starter")


def models(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Make the bundles from checkpoints alone: the published size with random weights, and the starter; then reads."""
    need_torch()
    from wyr_batch.models.encoder import EncoderConfig

    small = EncoderConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    made = timed(
        lambda: make_checkpoints(machine.folder / "full_size" / "checkpoint", small if machine.quick else None)
    )
    shutil.copytree(starter_path() / "checkpoint", machine.folder / "starter" / "checkpoint")
    if machine.quick:  # a graph without an export
        shutil.copy(starter_path() / "model.onnx", machine.folder / "starter")
    for name in MODELS:
        describe(machine, name)
    yield "checkpoints_s", made.wall_s
    n_reads, read_bp = (6, 300) if machine.quick else (PAPER_READS, READ_BP)
    made_reads = timed(lambda: make_reads(machine, "reads", n_reads, read_bp, read_bp))
    make_reads(machine, "mixed_reads", n_reads // 4, read_bp // 10, read_bp)
    yield "reads_s", made_reads.wall_s


def make_reads(machine: Machine, name: str, n_reads: int, least_bp: int, most_bp: int) -> None:
    """Write NAME.fastq.gz, and note what is in it."""
    n_bases = write_reads(machine.folder / f"{name}.fastq.gz", n_reads, least_bp, most_bp)
    machine.note(name, {"n_reads": n_reads, "least_bp": least_bp, "most_bp": most_bp, "n_bases": n_bases})


def describe(machine: Machine, name: str) -> None:
    """Write bundle.json for what lies in a model's folder."""
    folder, starter = machine.folder / name, load_bundle()
    files = [
        BundleFile(path.relative_to(folder).as_posix(), sha256_of(path), dtype_of(path), kind_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "bundle.json"
    ]
    described = Bundle(
        folder=folder,
        name=name,
        ranks=starter.ranks if name == "starter" else RANKS,
        max_tokens=64 if machine.quick else starter.max_tokens,
        window_bp=378 if machine.quick else starter.window_bp,
        pooling=starter.pooling if name == "starter" else "mean",
        files=tuple(files),
    )
    (folder / "bundle.json").write_text(bundle_json(described))


def gpu_module(machine: Machine) -> Any:
    """Return the published size in the form of a GPU on the device, in plain torch: no way has been chosen."""
    from wyr_batch.models.gpu.fused import GpuFused

    explanandum, explainer, max_tokens = loaded(machine)
    return GpuFused(explanandum, explainer, getattr(need_torch(), machine.half), max_tokens).to(machine.device)


def loaded(machine: Machine) -> tuple[Any, Any, int]:
    """Return the published size as its checkpoints hold it, on the CPU, and the longest row it takes."""
    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    bundle = machine.bundle("full_size")
    explanandum, _ = load_explanandum(bundle.checkpoint() / "explanandum")
    return explanandum, load_explainer(bundle.checkpoint() / "explainer"), bundle.max_tokens


def exported(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Export the graphs beside the checkpoints, in float16 first."""
    need_torch()
    if machine.quick:
        raise Skipped("left out of the dry run, which has the graph that the starter comes with")
    try:
        import onnx  # noqa: F401 - what the exporter needs, asked for first
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise Skipped(f"no package {error.name}") from None
    for name in MODELS:
        for dtype, file in (("float16", "model.fp16.onnx"), ("float32", "model.onnx")):
            path = machine.folder / name / file
            seconds = timed(lambda path=path, dtype=dtype: write_graph(path, dtype)).wall_s
            describe(machine, name)
            yield f"{name} {dtype}", {"seconds": seconds}


def write_graph(path: Path, dtype: str) -> None:
    """Export the checkpoint beside `path`."""
    from wyr_batch.export.graph import graph_module
    from wyr_batch.export.onnx_file import onnx_from_torch

    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    explanandum, _ = load_explanandum(path.parent / "checkpoint" / "explanandum")
    explainer = load_explainer(path.parent / "checkpoint" / "explainer")
    onnx_from_torch(graph_module(explanandum, explainer, load_bundle().max_tokens, dtype), path)


def kind_of(path: Path) -> str:
    return "onnx" if path.suffix == ".onnx" else "checkpoint"


def dtype_of(path: Path) -> str:
    return "float16" if path.name == "model.fp16.onnx" else "float32"
