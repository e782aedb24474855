"""What a run does to reads, wherever it runs: the same rows, plan and classes here and on every worker of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wyr_batch._version import __version__
from wyr_batch.bundle import Bundle
from wyr_batch.checks.files import shown_path
from wyr_batch.draw.kinds import KINDS, Kind
from wyr_batch.engines.base import Engine
from wyr_batch.errors import InputError, OtherReadsError, UsageError, WyrError
from wyr_batch.explain.step import ExplainStep
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats
from wyr_batch.reads.stream import InputWatch
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.manifest import describe_input
from wyr_batch.rows.parts import Parts
from wyr_batch.tokens.open import open_tokenizer
from wyr_batch.tokens.plan import Planner

logger = logging.getLogger(__name__)


class Job:
    """A run's options put to a bundle.

    Attributes:
        rows: makes the Parquet columns.
        explain_row: int32 [R], the class to explain per rank, -1 the predicted one.
        kind: of the inputs: 'reads', 'proteins' or 'text'.
        reading: what is read, and how.
    """

    def __init__(self, config: RunConfig, bundle: Bundle) -> None:
        """Raises: UsageError if the bundle has no such class, or takes no such window or inputs."""
        self.config, self.bundle = config, bundle
        self.kind = bundle.input
        self.reading = config.reading(self.kind)
        self.rows = RowBuilder(
            bundle.ranks,
            mask_dtype=config.mask_dtype,
            rank_masks=config.rank_masks,
            top_k=config.top_k,
            confidence=config.confidence,
            sequences=config.sequences,
            masked_calls=not config.no_masked_calls,
            token_ends=bool(bundle.vocabulary.file),
            as_written=bundle.input == "text",
            files=config.inputs if len(config.inputs) > (2 if config.paired else 1) else (),
        )
        self.explain_row = config.explain_row(bundle)
        self._window_tokens, self._overlap_tokens = config.window_tokens(bundle)
        self.tokenizer = open_tokenizer(bundle)

    def planner(self, engine: Engine) -> Planner:
        """Return what makes tokens, windows and batches for an engine."""
        batch_tokens = self.config.max_batch_tokens or engine.default_batch_tokens
        sizes = (self._window_tokens, self._overlap_tokens, batch_tokens)
        about = (self.tokenizer, self.bundle.vocabulary)
        return Planner(*sizes, self.config.min_length, engine.pad_to, *about)

    def steps(self, engines: Sequence[Engine], check: Callable[[], None] = lambda: None) -> list[ExplainStep]:
        """Return what turns work into results, one for each engine. Raises: UsageError if one leaves out too much."""
        wanted = {"rank_masks": self.config.rank_masks, "masked_calls": not self.config.no_masked_calls}
        if wanted["masked_calls"] and not all(engine.masked_calls for engine in engines):
            raise UsageError(
                "engines", "one without masked calls", "masked calls", "Set no_masked_calls, or open another."
            )
        return [ExplainStep(engine, self.explain_row, check, **wanted) for engine in engines]

    def log_plan(self, stats: RunStats, batch_tokens: int, n_threads: int) -> None:
        """Log what runs, and how."""
        logger.info(
            "wyr-batch %s: %s %s on %s, %d threads, %d tokens a batch, windows of %d tokens",
            *(__version__, stats.runtime, stats.dtype, stats.device, n_threads),
            *(batch_tokens, self._window_tokens),
        )

    def open_parts(self, stats: RunStats, keep_later: bool = False) -> Parts:
        """Return the run's parts, with what an earlier run finished counted in `stats`; see `Parts`."""
        parts = Parts(
            self.config.output,
            self.rows.schema,
            self.manifest(stats),
            dataset=self.config.is_dataset,
            resume=self.config.resume,
            overwrite=self.config.overwrite,
            part_s=self.config.part_s,
            keep_later=keep_later,
        )
        stats.resume(parts.counts)
        if parts.finished:
            logger.info("--resume: %s is finished already.", shown_path(self.config.output))
        elif parts.counts.n_reads:
            rows = KINDS[self.kind].rows
            logger.info("--resume: %s %s are finished; going on after them.", f"{parts.counts.n_reads:,}", rows)
        return parts

    def manifest(self, stats: RunStats) -> dict[str, Any]:
        """Return what the run is, for _run.json; `footer` goes into every Parquet file of it."""
        config, bundle = self.config, self.bundle
        footer = {
            "version": __version__,
            "command": "run",
            "inputs": [shown_path(path) for path in config.inputs],
            "bundle": bundle.name,
            "bundle_sha256": bundle.sha256,
            "runtime": stats.runtime,
            "device": stats.device,
            "dtype": stats.dtype,
            "mask_dtype": config.mask_dtype,
            "masked_calls": not config.no_masked_calls,
            "explain": list(config.explain) or ["predicted"],
            "ranks": [rank.name for rank in bundle.ranks],
            "input": bundle.input,
            "unit": bundle.unit,
        }
        return {
            "version": __version__,
            "bundle_sha256": bundle.sha256,
            "inputs": [describe_input(path) for path in config.inputs],
            "options": {**config.identity(), "dtype": stats.dtype, "runtime": stats.runtime},
            "footer": footer,
        }


@contextmanager
def keep_parts_on_error(parts: Parts, kind: Kind, damaged: Callable[[BaseException], Sequence[str]]) -> Iterator[None]:
    """Whatever ends the `with` before its end, finished parts stay, and a message says how to go on after them.

    Args:
        kind: of the inputs.
        damaged: returns the inputs whose damage an error is.
    """
    try:
        yield
    except BaseException as error:
        parts.abandon(damaged(error))
        if parts.counts.n_reads and isinstance(error, WyrError | KeyboardInterrupt):
            logger.error(
                "%s: %s %s are finished and kept. To go on after them, run the same command with --resume.",
                *(shown_path(parts.folder), f"{parts.counts.n_reads:,}", kind.rows),
            )
        raise


def damaged_inputs(error: BaseException, watch: InputWatch) -> list[str]:
    """Return the inputs that may be replaced when the run is resumed: those being read, if `error` is their damage."""
    return watch.current if isinstance(error, InputError) and not isinstance(error, OtherReadsError) else []
