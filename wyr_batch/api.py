"""Use from Python: `run` is the command, `load` gives a `Masker` for a few reads in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from wyr_batch import __version__
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.config import DEFAULT_BATCH_TOKENS, RunConfig, available_cpus
from wyr_batch.engines import Engine, open_engine
from wyr_batch.errors import InputError, WyrError
from wyr_batch.log import Progress
from wyr_batch.pipeline import Explained, ExplainStep, Planner, ReadWatch, Work, read_work
from wyr_batch.reads import ReadChunk
from wyr_batch.rows import RowBuilder
from wyr_batch.runner import run_overlapped, run_serial
from wyr_batch.stats import RunStats
from wyr_batch.writer import MaskWriter, check_output

logger = logging.getLogger("wyr_batch")


def run(config: RunConfig, *, progress: bool = False, overlapped: bool = True) -> RunStats:
    """Explain the reads of `config.inputs` and write `config.output`.

    The output appears under its name only when every read is in it. If the run ends early (damaged input, an
    interrupt), the rows finished so far stay in `<output>.partial`.

    Args:
        progress: show progress on stderr.
        overlapped: read, infer and write in three threads; False does the same in one.
    Returns: what went through.
    Raises: WyrError; KeyboardInterrupt.
    """
    check_output(config.output, config.overwrite)
    bundle = load_bundle(config.model)
    if config.model is None:
        logger.info("No --model given: using the built-in starter (%s).", bundle.summary())
    window_tokens, overlap_tokens = config.window_tokens(bundle)
    explain_row = config.explain_row(bundle)
    planner = Planner(window_tokens, overlap_tokens, config.batch_tokens, config.min_length)
    rows = RowBuilder(
        bundle.ranks,
        mask_dtype=config.mask_dtype,
        rank_masks=config.rank_masks,
        top_k=config.top_k,
        confidence=config.confidence,
    )
    with open_engine(bundle, config.device, config.runtime, config.dtype, config.n_threads) as engine:
        logger.info(
            "wyr-batch %s: %s, %d threads, %d tokens a batch, windows of %d tokens",
            *(__version__, engine.describe(), config.n_threads, config.batch_tokens, window_tokens),
        )
        watch = ReadWatch(len(config.inputs))
        works = read_work(config, planner, watch)
        # The first chunk is read before the output is opened: an input that cannot be read leaves nothing behind.
        first = next(works, None)
        stats = RunStats()
        writer = MaskWriter(config.output, rows.schema, _footer(bundle, engine, config), config.overwrite)
        with Progress(lambda: watch.share, progress) as bar:

            def write(done: Explained) -> None:
                writer.write(rows.build(done))
                stats.count(done, rows.status(done))
                bar.update(stats.n_reads, stats.n_bases)

            runner = run_overlapped if overlapped else run_serial
            try:
                runner(_chained(first, works), ExplainStep(engine, explain_row), write, stats)
                writer.commit()
            except BaseException as error:
                kept = writer.abandon()
                if kept and isinstance(error, WyrError | KeyboardInterrupt):
                    logger.error("%s: the %s rows finished before this are in it.", writer.partial, f"{kept:,}")
                raise
        stats.finish()
    if writer.n_rows != stats.n_reads:
        raise InputError(f"{config.output}: got {writer.n_rows} rows, expected {stats.n_reads}. Please report this.")
    return stats


def _chained(first: Work | None, rest: Generator[Work, None, None]) -> Generator[Work, None, None]:
    with closing(rest):
        if first is not None:
            yield first
        yield from rest


def _footer(bundle: Bundle, engine: Engine, config: RunConfig) -> dict[str, Any]:
    return {
        "version": __version__,
        "command": "run",
        "inputs": list(config.inputs),
        "bundle": bundle.name,
        "bundle_sha256": bundle.sha256,
        "runtime": engine.runtime,
        "device": engine.device,
        "dtype": engine.dtype,
        "mask_dtype": config.mask_dtype,
        "explain": list(config.explain) or ["predicted"],
        "ranks": [rank.name for rank in bundle.ranks],
    }


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one read's call rests on.

    Attributes:
        mask: float32 [T], one value per token, `<cls>` not counted.
        token_start: int32 [T], first base of each token.
        rank_masks: float32 [R, T].
        labels, masked_labels: per rank, the call on the plain and on the masked read; None for an empty read.
        probs, masked_probs: float32 [C], all classes in rank order.
    """

    mask: npt.NDArray[np.float32]
    token_start: npt.NDArray[np.int32]
    rank_masks: npt.NDArray[np.float32]
    labels: tuple[str, ...] | None
    masked_labels: tuple[str, ...] | None
    probs: npt.NDArray[np.float32]
    masked_probs: npt.NDArray[np.float32]


class Masker:
    """A loaded bundle that explains sequences in memory; see `load`."""

    def __init__(self, bundle: Bundle, engine: Engine, max_batch_tokens: int = DEFAULT_BATCH_TOKENS) -> None:
        self.bundle, self.engine = bundle, engine
        window_tokens = min(bundle.window_bp // 6, bundle.max_tokens - 1)
        self._planner = Planner(window_tokens, window_tokens // 8, max_batch_tokens)
        self._explain = ExplainStep(engine, np.full(len(bundle.ranks), -1, np.int32))

    def predict(self, sequences: Sequence[str]) -> list[Prediction]:
        """Explain a few reads, in order; long ones are cut and stitched as `run` does."""
        done = self._explain(self._planner.plan(ReadChunk.from_sequences(sequences)))
        bounds = done.work.tokens.offsets.tolist()
        predictions = []
        for i, (start, end) in enumerate(pairwise(bounds)):
            predictions.append(
                Prediction(
                    mask=done.mask[start:end],
                    token_start=done.work.tokens.starts[start:end],
                    rank_masks=done.rank_masks[:, start:end],
                    labels=self._labels(done.probs[i]) if end > start else None,
                    masked_labels=self._labels(done.masked_probs[i]) if end > start else None,
                    probs=done.probs[i],
                    masked_probs=done.masked_probs[i],
                )
            )
        return predictions

    def _labels(self, probs: npt.NDArray[np.float32]) -> tuple[str, ...]:
        pairs = zip(self.bundle.ranks, self._explain.slices, strict=True)
        return tuple(rank.labels[int(probs[classes].argmax())] for rank, classes in pairs)

    def close(self) -> None:
        """Give back the engine."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    bundle: str | Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    dtype: str = "auto",
    threads: int = 0,
) -> Masker:
    """Load a bundle (None: the built-in starter) for use from Python.

    Example:
        >>> import wyr_batch
        >>> with wyr_batch.load() as masker:                        # doctest: +SKIP
        ...     read, = masker.predict(["ACGTACGTTTGACCANNGACCAGT"])
        ...     read.labels, read.mask.round(2)
    """
    loaded = load_bundle(None if bundle is None else Path(bundle))
    return Masker(loaded, open_engine(loaded, device, runtime, dtype, threads or available_cpus()))


def summary_json(stats: RunStats, config: RunConfig) -> str:
    """Return the text of --json: the counters of the run and the options it ran with."""
    options = {"inputs": list(config.inputs), "output": str(config.output), "threads": config.n_threads}
    return json.dumps({"version": __version__, **options, **stats.as_json()}, indent=2) + "\n"
