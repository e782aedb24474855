"""Reads with the tokens of an earlier read are computed once, and nothing of it shows in the rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import LimitedEngine, different
from toy_engine import RANKS, ToyEngine, run_toy

from wyr_batch.api import Masker
from wyr_batch.explain.step import Explained, ExplainStep
from wyr_batch.job.config import RunConfig
from wyr_batch.job.outputs import summary_json
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.tokens.plan import Planner

PREDICTED = np.full(2, -1, np.int32)
PIECES = st.text("ACGTACGTNR", max_size=40)
# Short, empty, windowed and failing ones (AAAAAA), in either case and with U for T.
DIFFERENT = st.lists(st.one_of(PIECES, PIECES.map(lambda s: s * 5), PIECES.map(lambda s: "AAAAAA" + s)), max_size=4)
SPELLINGS = st.sampled_from([str, str.lower, lambda read: read.replace("T", "U")])


def explained(reads: list[str]) -> Explained:
    """Explain reads on an engine that fails on AAAAAA; those below 4 bases are too short."""
    planner = Planner(window_tokens=10, overlap_tokens=2, batch_tokens=64, min_length=4)
    return ExplainStep(LimitedEngine(10_000), PREDICTED)(planner.plan(ReadChunk.from_sequences(reads)))


def rows(done: Explained) -> pa.Table:
    batch = RowBuilder(RANKS, rank_masks=True, top_k=2, sequences=True).build(done)
    return pa.Table.from_batches([batch]).drop_columns("read_id")


@settings(max_examples=60, deadline=None)
@given(DIFFERENT, st.data())
def test_rows_are_those_of_each_read_alone_to_the_last_bit(pool: list[str], data: st.DataObject) -> None:
    reads = data.draw(st.lists(st.tuples(st.sampled_from([*pool, ""]), SPELLINGS), min_size=1, max_size=12))
    texts = [spell(read) for read, spell in reads]
    together, alone = explained(texts), [explained([text]) for text in texts]
    assert rows(together).equals(pa.concat_tables(map(rows, alone)).unify_dictionaries())
    reasons = {i: one.failed[0] for i, one in enumerate(alone) if one.failed}
    assert together.failed.keys() == reasons.keys()
    n_windowed = len({read.upper().replace("U", "T") for read in texts if len(read) >= 4})
    assert len(together.work.repeats) >= sum(len(text) >= 4 for text in texts) - n_windowed


def test_what_is_too_short_is_nobodys_twin() -> None:
    """A run of letters that are no bases is one token however long, so these two reads have the same tokens."""
    done = explained(["RRR", "RRRRR", "RRRRRR", "RRRRR"])
    assert (done.work.repeats.read.tolist(), done.work.repeats.source.tolist()) == ([2, 3], [1, 1])
    assert rows(done)["status"].to_pylist() == ["too_short", "ok", "ok", "ok"]
    assert rows(done)["length"].to_pylist() == [3, 5, 6, 5]


def test_repeats_are_not_computed_and_counted(tmp_path: Path) -> None:
    different_reads = ["ACGTAC" * 3 + different(i + 1) for i in range(20)]
    engine = ToyEngine()
    done = Masker(engine.bundle, engine).predict(different_reads * 5)
    assert sum(shape[0] for shape in engine.shapes) == 20
    assert all((read.mask == done[i % 20].mask).all() for i, read in enumerate(done))

    source = tmp_path / "reads.fasta"
    source.write_text("".join(f">r{i}\n{read}\n" for i, read in enumerate([*different_reads * 5, ""])))
    config = RunConfig((str(source),), tmp_path / "masks.parquet")
    stats = run_toy(config)
    assert json.loads(summary_json(stats, config))["reads_repeated"] == 80
    assert stats.n_run_tokens == 20 * 5
    assert pq.read_table(config.output)["mask"].to_pylist()[:100] == [read.mask.tolist() for read in done]
