"""Use from Python: `run` is the command, `load` gives a `Masker` for a few reads in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine, open_engines
from wyr_batch.draw.kinds import KINDS
from wyr_batch.engines.base import Engine
from wyr_batch.errors import InputError, UsageError
from wyr_batch.explain.retry import BatchRunner
from wyr_batch.explain.step import ExplainStep
from wyr_batch.host import limited_threads
from wyr_batch.job.config import RunConfig, check_columns, check_explain, explain_row
from wyr_batch.job.job import Job, damaged_inputs, keep_parts_on_error
from wyr_batch.job.outputs import check_run_outputs
from wyr_batch.job.progress import Progress
from wyr_batch.job.stats import RunStats
from wyr_batch.pipeline import explain_reads
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.stream import InputWatch, check_distinct, check_readable, read_new
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.counts import Counts
from wyr_batch.rows.parts import Parts
from wyr_batch.rows.prediction import Prediction, explained_from, predictions_from
from wyr_batch.tokens.open import open_tokenizer
from wyr_batch.tokens.plan import Planner

__all__ = ["Masker", "Prediction", "load", "run"]

logger = logging.getLogger(__name__)


def run(
    config: RunConfig,
    *,
    engines: Sequence[Engine] | None = None,
    progress: bool = False,
    overlapped: bool = True,
    check: Callable[[], None] = lambda: None,
) -> RunStats:
    """Explain the reads of `config.inputs` and write `config.output`.

    The output appears under its name only once every read is in it. Until then finished parts lie beside it
    (rows/parts.py); whatever ends the run, they stay, and the same call with `resume=True` goes on after them.

    Args:
        config: what to run.
        engines: already open, of one bundle; they are used instead of what `config` asks for, and stay open.
        progress: show progress on stderr.
        overlapped: read, infer and write in three threads; False does the same in one.
        check: called between batches; raises if the run is to end, as `cli.interrupt.stop_on_signal` gives it.
    Returns: what went through.
    Raises: WyrError; KeyboardInterrupt.
    """
    check_run_outputs(config)
    bundle = engines[0].bundle if engines else load_bundle(config.model)
    if config.model is None and not engines:
        logger.info("No --model given: using the built-in starter (%s).", bundle.summary())
    job = Job(config, bundle)
    check_distinct(config.inputs, config.paired)
    if config.ray is not None:
        from wyr_batch.cluster.run import run_on_ray

        return run_on_ray(job, progress, check)
    for path in config.inputs:  # before an engine is opened, which may take minutes, and before anything is written
        check_readable(path, job.reading.open_input)
    with ExitStack() as stack:
        stack.enter_context(limited_threads(config.n_threads))
        if not engines:
            engines = [stack.enter_context(engine) for engine in open_engines(bundle, config.engine_request)]
        devices = ", ".join(dict.fromkeys(engine.device for engine in engines))
        stats = RunStats(engines[0].runtime, devices, engines[0].dtype, KINDS[job.kind])
        planner, steps = job.planner(engines[0]), job.steps(engines, check)
        job.log_plan(stats, planner.batch_tokens, config.n_threads)
        parts = job.open_parts(stats)
        if parts.finished:
            return stats
        _explain_all(job, planner, steps, parts, stats, progress, overlapped, check)
        stats.finish()
    if parts.counts.n_reads != stats.n_reads:
        raise AssertionError(f"{config.output}: {parts.counts.n_reads} rows of {stats.n_reads} reads")
    return stats


def _explain_all(
    job: Job,
    planner: Planner,
    steps: Sequence[ExplainStep],
    parts: Parts,
    stats: RunStats,
    progress: bool,
    overlapped: bool,
    check: Callable[[], None],
) -> None:
    """Reads -> parts -> output; what is finished is kept whatever happens."""
    watch = InputWatch(len(job.config.inputs))
    chunks = read_new(job.reading, watch, parts.counts.n_reads, parts.digest)
    with Progress(lambda: watch.share, progress) as bar:

        def write(batch: pa.RecordBatch, counts: Counts, digest: tuple[int, ...]) -> None:
            parts.write(batch, counts, digest)
            bar.update(stats)

        with keep_parts_on_error(parts, stats.kind, lambda error: damaged_inputs(error, watch)):
            explain_reads(chunks, planner, steps, job.rows, write, stats, overlapped=overlapped, check=check)
            parts.commit(stats.rates())


class Masker:
    """A loaded bundle that explains sequences in memory, from any thread; see `load`."""

    def __init__(self, bundle: Bundle, engine: Engine, masked_calls: bool = True) -> None:
        """
        Args:
            masked_calls: classify masked reads as well, which the engine must do.
        """
        self.bundle, self.engine = bundle, engine
        self._masked_calls = masked_calls and engine.masked_calls
        window_tokens = min(bundle.window_tokens, bundle.max_tokens - bundle.vocabulary.n_special)
        self._planner = Planner(
            window_tokens,
            window_tokens // 8,
            engine.default_batch_tokens,
            pad_to=engine.pad_to,
            tokenizer=open_tokenizer(bundle),
            vocabulary=bundle.vocabulary,
        )
        self._runner = BatchRunner(engine)
        self._token_ends, self._as_written = bool(bundle.vocabulary.file), bundle.input == "text"
        self._rows = RowBuilder(bundle.ranks, token_ends=self._token_ends, as_written=self._as_written)
        self._one_at_a_time = threading.Lock()

    def predict(
        self,
        sequences: Iterable[str | bytes] | str | bytes,
        explain: str | Sequence[str] = "predicted",
        second: Iterable[str | bytes] | str | bytes | None = None,
    ) -> list[Prediction]:
        """Explain a few reads, in order; long ones are cut and stitched as `run` does.

        Calls from several threads run one after the other, for each uses all of the engine.

        Args:
            sequences: reads as text or ASCII bytes, for a model of texts the texts (bytes are UTF-8); one alone is one.
            explain: 'predicted', or RANK=LABEL for some ranks, as `run` has it.
            second: the second text of each pair, for a model of pairs.
        Returns: one Prediction a read. A read that cannot be explained is one of status failed, with the reason.
        Raises: InputError for what is no sequence; UsageError for a rank or label that is not there; EngineError if
            read after read fails, the engine is closed, or this process was forked from the one that loaded it.
        """
        encoding = "utf-8" if self._as_written else "latin-1"
        if second is not None and not self._as_written:
            raise UsageError("second", f"texts, with a model of {self.bundle.input}", "none")
        chunk = self._chunk(
            _as_texts(sequences, encoding), seconds=None if second is None else _as_texts(second, encoding)
        )
        step = self._step(explain)
        self.engine.check_usable()
        with self._one_at_a_time:
            done = step(self._planner.plan(chunk))
        return predictions_from(done, self._rows.status(done), self.bundle.ranks, KINDS[self.bundle.input])

    def _chunk(
        self, sequences: list[str], ids: Sequence[str] | None = None, seconds: list[str] | None = None
    ) -> ReadChunk:
        """Return what `run` would read: sequences, or texts as they are."""
        if self._as_written:
            return ReadChunk.from_texts(sequences, seconds, ids)
        return ReadChunk.from_sequences(sequences, ids)

    def _chunk_of(self, predictions: Sequence[Prediction], ids: Sequence[str]) -> ReadChunk:
        """Return what predictions are of. Raises: InputError for pairs beside single texts."""
        pairs = {read.second_start >= 0 for read in predictions}
        if pairs != {True}:
            if True in pairs:
                raise InputError("predictions", "pairs and single texts", "one of the two", "Make rows of each alone.")
            return self._chunk([read.sequence for read in predictions], ids)
        firsts = [read.sequence[: read.second_start - 1] for read in predictions]
        return self._chunk(firsts, ids, [read.sequence[read.second_start :] for read in predictions])

    def _step(self, explain: str | Sequence[str]) -> ExplainStep:
        """Return what explains reads for some classes; its batches are as small as memory has asked for before."""
        classes = (explain,) if isinstance(explain, str) else tuple(explain)
        if odd := next((item for item in classes if not isinstance(item, str)), None):
            raise UsageError("--explain", type(odd).__name__, "'predicted' or RANK=LABEL")
        check_explain(classes)
        row = explain_row(classes, self.bundle.ranks)
        step = ExplainStep(self.engine, row, masked_calls=self._masked_calls)
        step.runner = self._runner
        return step

    def to_arrow(
        self,
        predictions: Sequence[Prediction],
        ids: Sequence[str] | None = None,
        *,
        mask_dtype: str = "float32",
        rank_masks: bool = False,
        top_k: int = 1,
        sequences: bool = False,
        confidence: float = 0.0,
    ) -> pa.RecordBatch:
        """Return predictions of this bundle as rows: the columns and values that `run` writes for the same reads.

        Args:
            ids: names of the reads; None: their own, read1, read2, ...
            mask_dtype, rank_masks, top_k, sequences, confidence: as the options of `run`.
        Raises: UsageError for an option's value; InputError for predictions of another bundle, and if there is not one
            name for each read.
        """
        if any(read.ranks != self.bundle.ranks for read in predictions):
            raise InputError("predictions", "other ranks", f"those of {self.bundle.name}", "Use their Masker.")
        check_columns(mask_dtype, top_k, confidence)
        names = [read.read_id for read in predictions] if ids is None else ids
        work = self._planner.plan(self._chunk_of(predictions, names))
        done = explained_from(predictions, work, len(self.bundle.ranks), self.bundle.n_classes)
        rows = RowBuilder(
            self.bundle.ranks,
            mask_dtype=mask_dtype,
            rank_masks=rank_masks,
            top_k=top_k,
            confidence=confidence,
            sequences=sequences,
            masked_calls=done.masked_probs.shape[1] > 0,
            token_ends=self._token_ends,
            as_written=self._as_written,
        )
        return rows.build(done)

    def close(self) -> None:
        """Give back the engine."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_texts(sequences: Iterable[str | bytes] | str | bytes, encoding: str) -> list[str]:
    """Return reads as text. Raises: InputError naming the one that is none."""
    if isinstance(sequences, str | bytes):
        sequences = [sequences]
    if isinstance(sequences, Mapping | Set) or not isinstance(sequences, Iterable):
        raise InputError("sequences", type(sequences).__name__, "texts in some order", "Give a list of them.")
    texts = []
    for i, item in enumerate(sequences):
        if not isinstance(item, str | bytes):
            raise InputError(
                f"sequences, item {i + 1}", type(item).__name__, "text", "Give str(item) if that is its bases."
            )
        try:
            texts.append(item if isinstance(item, str) else item.decode(encoding))
        except UnicodeDecodeError as error:
            raise InputError(f"sequences, item {i + 1}", str(error), "UTF-8", "Decode it first.") from None
    return texts


def load(
    bundle: str | Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    dtype: str = "auto",
    threads: int = 0,
    masked_calls: bool = True,
) -> Masker:
    """Load a bundle for use from Python.

    Args:
        bundle: its directory; None is the built-in starter.
        device, runtime, dtype: as in `RunConfig`; what is asked for and not there is an error.
        threads: of the CPU; 0 takes those the process may use.
        masked_calls: classify masked reads as well; without, a read takes about half as long.
    Returns: a Masker, which gives back what it holds when it is closed or its `with` ends.
    Raises: ModelError, UsageError, MissingExtraError.

    Example:
        >>> import wyr_batch
        >>> with wyr_batch.load() as masker:                        # doctest: +SKIP
        ...     read, = masker.predict(["ACGTACGTTTGACCANNGACCAGT"])
        ...     read.labels, read.mask.round(2), read.segments
    """
    loaded = load_bundle(None if bundle is None else Path(bundle))
    request = EngineRequest(device, runtime, dtype, threads, masked_calls=masked_calls)
    return Masker(loaded, open_engine(loaded, request), masked_calls)
