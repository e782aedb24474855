"""A run on a Ray cluster, with Ray Data. Scheduling, back-pressure and retries are Ray's.

One task streams the inputs as units; actors that hold the model explain them, in any order, and write each as a part;
the command counts the parts in input order and joins them. A unit and its part have one number and one content, so what
Ray does again because a process or a machine died gives the same part: every read is in the output once.

- A packed stream cannot be entered in its middle, so there is one reader. What it reads goes to the actors through
  Ray's object store, and Ray Data holds it back while they are busy.
- A reader that dies is started anew by Ray and gives the same units; so inputs are files, not pipes.
- An actor that dies is started anew by Ray, which gives it the unit again, until worker.py counts too many deaths.
- Errors that a user can mend come back as data and are raised here. Any other error ends the run as Ray reports it.

Not handled: finding a Ray cluster's machines, or starting them; Ray's own tools do that.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from wyr_batch._version import __version__
from wyr_batch.checks.fields import Fields
from wyr_batch.cluster import units
from wyr_batch.cluster.units import Reading, about_from_table, error_from, read_units
from wyr_batch.cluster.worker import UnitWorker, WorkerConfig, probe_worker
from wyr_batch.draw.kinds import KINDS
from wyr_batch.errors import EngineError, MissingExtraError, UsageError, WyrError
from wyr_batch.job.config import RunConfig
from wyr_batch.job.job import Job, keep_parts_on_error
from wyr_batch.job.progress import Progress
from wyr_batch.job.stats import RunStats
from wyr_batch.rows.counts import Counts
from wyr_batch.rows.folder import parts_folder
from wyr_batch.rows.parts import Parts

# Ray counts CPUs in shares: workers leave an eighth of one to the reader, or on one CPU it would never start.
READER_CPUS = 0.125
_WORKER_SHARE = 1 - READER_CPUS
_POLL_S = 0.1
_JOIN_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of a run: how many, and what each claims of its machine."""

    n_workers: int
    n_threads: int
    num_cpus: float
    num_gpus: int


def run_on_ray(job: Job, progress: bool, check: Callable[[], None]) -> RunStats:
    """Run a job on the cluster of `config.ray`; arguments, result and errors as of `api.run`.

    Raises: MissingExtraError without the package ray; UsageError if there is no such cluster, or none that has what
        was asked for.
    """
    config = job.config
    with connected(config.ray or "") as ray:
        pool = pool_for(config, ray.nodes())
        device = config.device.replace("auto", "cpu").replace(":all", "")
        told = replace(config, device=device, threads=pool.n_threads)
        orders = WorkerConfig(told, os.getcwd(), __version__, job.bundle.sha256, str(_absolute_parts(config)))
        seen = _on_a_worker(ray, pool, orders)
        stats = RunStats(seen["runtime"], seen["device"], seen["dtype"], KINDS[job.kind])
        job.log_plan(stats, seen["batch_tokens"], pool.n_threads)
        logger.info("--ray: %d workers on %s", pool.n_workers, _machines(ray.nodes()))
        parts = job.open_parts(stats, keep_later=True)
        if parts.finished:
            return stats
        told = replace(told, runtime=stats.runtime, dtype=stats.dtype)
        orders = replace(orders, config=told, run=parts.run)
        cuts = (units.UNIT_READS, units.UNIT_BASES)
        reading = Reading(config, orders.folder, parts.n_parts, parts.counts.n_reads, parts.digest, *cuts, job.kind)
        found = _Found(parts, stats)
        keeping = keep_parts_on_error(parts, stats.kind, lambda error: found.damaged)
        with keeping, Progress(lambda: found.share, progress) as bar:
            with _results(ray, reading, orders, pool, check) as results:
                for about in results:
                    found.add(about)
                    bar.update(stats)
            found.check()
            parts.commit(stats.rates())
        stats.finish()
    return stats


class _Found:
    """What came back from the workers, counted in the order of the units.

    Attributes:
        share: of the inputs that the furthest unit ends at.
        damaged: inputs whose damage ended the reading.
    """

    def __init__(self, parts: Parts, stats: RunStats) -> None:
        self.parts, self.stats = parts, stats
        self.share: float | None = None
        self.damaged: list[str] = []
        self._failure: WyrError | None = None
        self._waiting: dict[int, tuple[Counts, tuple[int, ...]]] = {}

    def add(self, about: dict[str, Any]) -> None:
        """Take a result. Raises: the WyrError that a worker met; one of the reader waits for `check`."""
        if "warnings" in about:
            for warning in about["warnings"]:
                logger.warning("%s", warning)
            return
        if "error" in about:
            error = error_from(about)
            if not about["reading"]:
                raise error
            self._failure, self.damaged = error, about["damaged"]
            return
        if about["replaces"]:
            logger.warning(
                "a worker died; Ray has started another one (%s) and given it the %s again",
                *(about["worker"], self.stats.kind.rows),
            )
        counts = Counts.from_json(Fields(about["counts"], "counts of a worker", EngineError))
        if about["unit"] in self._waiting or about["unit"] < self.parts.n_parts:
            raise AssertionError(f"part {about['unit']} came twice")
        self._waiting[about["unit"]] = counts, tuple(about["digest"])
        self.stats.add(counts, about["n_run_tokens"], about["n_padded_tokens"], about["n_repeats"])
        for stage, seconds in about["stage_s"].items():
            self.stats.stage_s[stage] += seconds
        self.share = about["share"] if self.share is None else max(self.share, about["share"] or 0.0)
        while self.parts.n_parts in self._waiting:
            self.parts.take(*self._waiting.pop(self.parts.n_parts))

    def check(self) -> None:
        """Raise what ended the reading, or AssertionError unless every read came back."""
        if self._failure:
            raise self._failure
        if self._waiting or self.parts.counts.n_reads != self.stats.n_reads:
            rows = f"{self.parts.counts.n_reads} rows of {self.stats.n_reads} {self.stats.kind.rows}"
            raise AssertionError(f"{self.parts.output}: {rows}, parts {sorted(self._waiting)} out of order")


def pool_for(config: RunConfig, nodes: list[dict[str, Any]]) -> Pool:
    """Return the workers for a cluster: one for every -t CPUs of a machine (1 if not given), or for every GPU.

    Args:
        nodes: machines as `ray.nodes()` describes them.
    Raises: UsageError if there is no machine for even one.
    """
    n_threads = config.threads or 1
    found = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, gpus = ([int(node.get(kind, 0)) for node in found] for kind in ("CPU", "GPU"))
    most = max(cpus, default=0)
    if most < n_threads:
        raise UsageError("--threads", f"{n_threads} with --ray", f"{most} at most, the CPUs of the largest machine")
    by_cpu = [n // n_threads for n in cpus]
    if not config.device.startswith("cuda"):
        return Pool(sum(by_cpu), n_threads, n_threads * _WORKER_SHARE, 0)
    n_workers = sum(min(pair) for pair in zip(by_cpu, gpus, strict=True))
    if not n_workers:
        raise UsageError(
            "--device",
            f"{config.device} with --ray",
            f"a machine with a GPU and {n_threads} CPUs in the cluster",
            "Name another --device, or start Ray where the GPUs are.",
        )
    return Pool(n_workers, n_threads, n_threads * _WORKER_SHARE, 1)


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect to a cluster, or start a Ray of this machine's; a connection that is there already is used and kept.

    Args:
        address: as of --ray; '' takes RAY_ADDRESS, or the cluster this machine belongs to, or starts one here.
    Yields: the package ray.
    Raises: MissingExtraError, UsageError.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        ray.init(address=address or None, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        got = f"{address or 'no address'} and '{str(error).strip().splitlines()[0][:200]}'"
        raise UsageError("--ray", got, "a Ray cluster that answers", "Check it with: ray status") from None
    try:
        if threading.current_thread() is threading.main_thread():  # ray has set its own; the run's are gentle
            for number, handler in handlers.items():
                signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    """Import Ray; it is told to keep its reports of usage, and its hints, to itself. Raises: MissingExtraError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("--ray", "ray", "ray") from None
    module: ModuleType = ray
    return module


def _on_a_worker(ray: ModuleType, pool: Pool, orders: WorkerConfig) -> dict[str, Any]:
    """Return what `probe_worker` finds where a worker will be. Raises: the WyrError it meets."""
    task = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, max_calls=1)(probe_worker)
    seen: dict[str, Any] = ray.get(task.remote(orders))
    if "error" in seen:
        raise error_from(seen)
    return seen


def _dataset(ray: ModuleType, reading: Reading, orders: WorkerConfig, pool: Pool) -> Any:
    """Return the run as a Ray Data pipeline whose rows are results."""
    context = ray.data.DataContext.get_current()
    before = {name: getattr(context, name) for name in ("target_max_block_size", "enable_progress_bars")}
    # A block for each row: a unit goes to a worker as soon as it is read, and no two are in one block.
    context.target_max_block_size, context.enable_progress_bars = 1, False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and said once
    try:
        start = ray.data.from_arrow(pa.table({"start": [0]}))
        read = start.map_batches(partial(_read, reading=reading), batch_format="pyarrow", num_cpus=READER_CPUS)
        return read.map_batches(
            UnitWorker,
            fn_constructor_args=(orders, _is_replacement),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=pool.n_workers),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
        )
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _is_replacement() -> bool:
    return bool(_ray().get_runtime_context().was_current_actor_reconstructed)


def _read(_: pa.Table, reading: Reading) -> Iterator[pa.Table]:
    yield from read_units(reading)


@contextmanager
def _results(
    ray: ModuleType, reading: Reading, orders: WorkerConfig, pool: Pool, check: Callable[[], None]
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run the pipeline; gives its results as they come. A thread waits for them, so that signals are met meanwhile."""
    rows = _dataset(ray, reading, orders, pool)
    arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def receive() -> None:
        end: BaseException | None = None
        try:
            for table in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for i in range(table.num_rows):
                    arrived.put(about_from_table(table.slice(i, 1)))
                if stop.is_set():
                    return
        except BaseException as error:
            end = error
        arrived.put(end)

    def results() -> Iterator[dict[str, Any]]:
        while True:
            check()
            try:
                item = arrived.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise _ray_error(item) from item
            yield item

    thread = threading.Thread(target=receive, name="wyr-ray", daemon=True)
    thread.start()
    try:
        yield results()
    finally:
        stop.set()
        thread.join(_JOIN_S)


def _ray_error(error: BaseException) -> WyrError:
    """Return what to raise for an error that is none of ours; Ray's text of it is a traceback over many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    got = f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"
    return EngineError("--ray", f"'{got}'", "results", "Run again with --debug for Ray's traceback.")


def _absolute_parts(config: RunConfig) -> Path:
    return (config.output if config.is_dataset else parts_folder(config.output)).absolute()


def _machines(nodes: list[dict[str, Any]]) -> str:
    n = Counter(bool(node["Alive"]) for node in nodes)[True]
    return "1 machine" if n == 1 else f"{n} machines"
