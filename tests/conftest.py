"""What several test modules use."""

from __future__ import annotations

import pytest
from toy_engine import ToyEngine

from wyr_batch import api, inputs, writer


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs with two toy engines, in chunks of at most 16 reads, so that a few hundred make many parts."""
    engine = ToyEngine()
    monkeypatch.setattr(api, "load_bundle", lambda folder: engine.bundle)
    monkeypatch.setattr(api, "open_engines", lambda *_: [engine, ToyEngine()])
    few = inputs.open_reads
    monkeypatch.setattr(inputs, "open_reads", lambda path: few(path, chunk_reads=16))
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", 50)
