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
    monkeypatch.setattr(api, "open_engines", lambda *_: [ToyEngine(), ToyEngine()])
    few = inputs.open_reads
    monkeypatch.setattr(inputs, "open_reads", lambda path, **kwargs: few(path, chunk_reads=16, **kwargs))
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", 50)
