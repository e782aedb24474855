"""The data flow of a run, top to bottom; each step is a folder.

reads/    files          -> ReadChunk      consecutive reads as columns, unpacked and checked
tokens/   ReadChunk      -> Work           6-mers, windows of long reads, batches by token budget
explain/  Work           -> Explained      engines/ run the batches, windows are stitched: a row a read, in input order
rows/     Explained      -> RecordBatch    the Parquet columns; then parts, and the one file
job/      what runs at the same time, what is counted, what is said

It knows no threads: see job/overlap.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import pyarrow as pa

from wyr_batch.explain.step import Explained, ExplainStep
from wyr_batch.job.overlap import run_overlapped, run_serial
from wyr_batch.job.stats import RunStats, counts_of
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.counts import Counts
from wyr_batch.tokens.plan import Planner, plan_chunks

Chunks = Generator[tuple[ReadChunk, tuple[int, ...]], None, None]


def explain_reads(
    chunks: Chunks,
    planner: Planner,
    steps: Sequence[ExplainStep],
    rows: RowBuilder,
    write: Callable[[pa.RecordBatch, Counts, tuple[int, ...]], None],
    stats: RunStats,
    *,
    overlapped: bool = True,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Explain chunks of reads and hand their rows on, in input order; the one loop of every kind of run.

    Args:
        chunks: with the checksums of all reads up to each one's end.
        steps: one for each engine; chunks go to the one that is free.
        write: takes a chunk's rows, counts and checksums; `stats` has them already, for whoever shows progress.
        overlapped: read, explain and write in threads of their own; False does all in this one.
        check: called between batches; raises if the run is to end.
    Raises: what any step raises; everything before it has been written.
    """

    def write_rows(done: Explained) -> None:
        counts = counts_of(done, rows.status(done))
        batch = rows.build(done)
        stats.add(counts, done.n_run_tokens, done.n_padded_tokens, len(done.work.repeats))
        write(batch, counts, done.work.digest)

    run = run_overlapped if overlapped else run_serial
    run(plan_chunks(chunks, planner), steps, write_rows, stats, check)
