"""What several test modules use."""

from __future__ import annotations

import os

import pytest
from toy_engine import ToyEngine

from wyr_batch import api
from wyr_batch.reads import stream as inputs
from wyr_batch.rows import writer

# Each of several test processes keeps to a CPU of its own: torch and the runtimes would take all of them each.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(worker.removeprefix("gw")) % len(cpus)]})

# Files that take longest, which start first: what comes last should be short.
SLOW_FIRST = (
    "test_ray",
    "test_export",
    "test_precisions",
    "test_train",
    "test_streams",
    "test_evaluate",
    "test_resume",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs with two toy engines, in chunks of at most 16 reads, so that a few hundred make many parts."""
    engine = ToyEngine()
    monkeypatch.setattr(api, "load_bundle", lambda folder: engine.bundle)
    monkeypatch.setattr(api, "open_engines", lambda *_: [ToyEngine(), ToyEngine()])
    few = inputs.open_reads
    monkeypatch.setattr(inputs, "open_reads", lambda path, **kwargs: few(path, chunk_reads=16, **kwargs))
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", 50)
