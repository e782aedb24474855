"""What several test modules use: runs in small chunks, machines with and without a GPU, exported bundles."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_cuda import FakeLibrary, installed
from fake_tensorrt import FakeTensorRt
from hypothesis import settings
from toy_engine import FileBundle, ToyEngine, toy_bundle

from wyr_batch import choose
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.engines import cuda
from wyr_batch.errors import MissingExtraError
from wyr_batch.proof import first_use, versions
from wyr_batch.reads import stream

# Each of several test processes keeps to a CPU of its own: torch and the runtimes would take all of them each.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(worker.removeprefix("gw")) % len(cpus)]})

# Without a GPU to compile for, kernels run in Triton's interpreter, which is chosen before Triton is first imported.
if not cuda.find_gpus()[0]:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No test is a limit on time: a busy machine takes longer for an example.
settings.register_profile("wyr-batch", deadline=None)
settings.load_profile("wyr-batch")

# Files that take longest, which start first: what comes last should be short.
SLOW_FIRST = (
    "test_precisions",
    "test_family_runs",
    "test_docs_train",
    "test_docs_texts",
    "test_ray",
    "test_gpu_kit",
    "test_family_graphs",
    "test_train_texts",
    "test_ray_command",
    "test_train",
    "test_resume",
    "test_offline",
    "test_graph",
    "test_threads",
    "test_published",
    "test_readout",
    "test_export",
    "test_streams",
    "test_cli",
    "test_docs_site",
    "test_convert_fastx",
    "test_run",
    "test_inputs",
    "test_evaluate",
    "test_convert_alignments",
    "test_chimeras",
    "test_convert",
    "test_outputs",
    "test_gpu_form",
    "test_masks",
    "test_train_options",
    "test_kreport",
    "test_view",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # torch and the like, which every collection of garbage would look through again


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of at most 16 reads, so that a few hundred reads make many parts."""
    monkeypatch.setattr(stream, "open_reads", partial(stream.open_reads, chunk_reads=16))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes to a file, called x unless it is given a name."""

    def written(data: bytes, name: str = "x") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return written


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of `export_toy`, made by the first test process that asks for it. Copy what is to be changed."""
    from exported_toy import export_toy

    return made_once(tmp_path_factory, "exported_toy", export_toy)


@pytest.fixture(scope="session")
def exported_texts(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of `export_text_toy`, as `exported`."""
    from exported_text_toy import export_text_toy

    return made_once(tmp_path_factory, "exported_text_toy", export_text_toy)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, export: Callable[[Path], None]) -> Bundle:
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all test processes
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            export(folder)
    return load_bundle(folder)


@pytest.fixture
def file_bundle(tmp_path: Path) -> FileBundle:
    """The toy as a folder with one file, which stands for both precisions of the graph."""
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    toy = toy_bundle()
    return FileBundle(tmp_path, toy.name, toy.ranks, toy.max_tokens, toy.window_bp, toy.pooling, ())


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibrary]:
    """The stand-in for the driver, with a cache of its own; the toy is the reference that engines are held to."""
    logging.getLogger("wyr_batch").handlers.clear()  # of a command that another test ran
    monkeypatch.setenv("WYR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(first_use, "open_reference", lambda bundle, threads: ToyEngine())
    for module in (choose, versions):  # a process of its own would have no stand-ins
        monkeypatch.setattr(module, "apart", lambda what, function, *arguments: function(*arguments))
    versions._asked_apart.cache_clear()
    with installed(FakeLibrary()) as library:
        yield library


@pytest.fixture
def trt(library: FakeLibrary, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """The stand-in for TensorRT."""
    fake = FakeTensorRt(library)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


@pytest.fixture
def no_gpu() -> Iterator[None]:
    """A machine without the driver, whatever this one has."""

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "load_library", missing)
        cuda.driver.cache_clear()
        yield
        cuda.driver.cache_clear()


@pytest.fixture
def usable_runtimes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these runtimes be usable, each given with its version, and no others."""

    def only(**versions: str) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise MissingExtraError(f"--runtime {name}", name, "gpu")
            return versions[name]

        monkeypatch.setattr(choose, "runtime_version", version)
        monkeypatch.setattr(choose, "version_apart", version)

    return only
