"""What a machine of a cluster does: load the model once, explain units, write each as a part. This module knows no Ray.

A part is written beside its name and renamed when it is whole and on the disk. So a unit may be tried any number of
times, even twice at once: its part is there once, with the same rows. A part that is there already is not made again.
An attempt whose worker died leaves its partial file behind, which is how later ones know that reads kill workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from wyr_batch._version import __version__
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.checks.fields import Fields
from wyr_batch.choose import open_engines
from wyr_batch.cluster.units import (
    Unit,
    about_from_table,
    enter_folder,
    table_from_error,
    table_from_result,
    unit_from_table,
)
from wyr_batch.draw.kinds import KINDS
from wyr_batch.engines.base import Engine
from wyr_batch.errors import EngineError, ModelError, OutputError, WyrError
from wyr_batch.host import limited_threads
from wyr_batch.job.config import RunConfig
from wyr_batch.job.job import Job
from wyr_batch.job.stats import RunStats
from wyr_batch.pipeline import explain_reads
from wyr_batch.reads.stream import check_readable
from wyr_batch.rows.counts import Counts
from wyr_batch.rows.folder import PART_NAME, footer_of
from wyr_batch.rows.manifest import MANIFEST_NAME
from wyr_batch.rows.writer import MaskWriter

# So many workers may die on a unit before it is the reads', or the memory's, fault.
MAX_DEATHS = 3


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What workers have to be told.

    Attributes:
        config: with the device, runtime, precision and threads of a worker.
        folder: where the command was typed.
        version, bundle_sha256: that the machine where it was typed has.
        parts: folder of the parts.
        run: the manifest.
    """

    config: RunConfig
    folder: str
    version: str
    bundle_sha256: str
    parts: str = ""
    run: Mapping[str, Any] | None = None

    @property
    def run_key(self) -> str:
        """What parts of this run are known by: two runs that differ in what rows depend on have two keys."""
        content = {key: value for key, value in (self.run or {}).items() if key != "footer"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def probe_worker(orders: WorkerConfig) -> dict[str, Any]:
    """Load the model on a worker before anything is written, and open the inputs there.

    Returns: runtime, device, dtype and tokens a batch of the engine; or an error, as `units.error_from` takes it.
    """
    try:
        enter_folder(orders.folder)
        bundle = _same_bundle(orders)
        job = Job(orders.config, bundle)
        for path in orders.config.inputs:
            check_readable(path, job.reading.open_input)
        engines = _engines(orders, bundle)
        for engine in engines:
            engine.close()
        one = engines[0]
        batch_tokens = job.planner(one).batch_tokens
        return {"runtime": one.runtime, "device": one.device, "dtype": one.dtype, "batch_tokens": batch_tokens}
    except WyrError as error:
        return about_from_table(table_from_error(error))


class UnitWorker:
    """Holds the model; called with a unit's row, it writes the part and returns a row of counts."""

    def __init__(self, orders: WorkerConfig, is_replacement: Callable[[], bool] = lambda: False) -> None:
        """Never raises a WyrError: the first one is every unit's result, so that its message arrives.

        Args:
            is_replacement: says whether this worker is in the place of one that died.
        """
        self.orders = orders
        self.failure: pa.Table | None = None
        self.replaces = is_replacement()
        try:
            self._begin()
        except WyrError as error:
            self.failure = table_from_error(error)

    def _begin(self) -> None:
        orders = self.orders
        enter_folder(orders.folder)
        if not (Path(orders.parts) / MANIFEST_NAME).is_file():
            raise OutputError(
                orders.parts,
                f"no such folder on {socket.gethostname()}",
                "the one the run writes to",
                "Name an -o on a file system that every machine of the cluster has.",
            )
        self._for_life = ExitStack()  # a worker's process is its own
        self._for_life.enter_context(limited_threads(orders.config.n_threads))
        self.job = Job(orders.config, _same_bundle(orders))
        engines = _engines(orders, self.job.bundle)  # open for as long as the process lives
        self.planner, self.steps = self.job.planner(engines[0]), self.job.steps(engines)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Explain a unit.

        Args:
            table: one row of `units.read_units`.
        Returns: one row: `unit`, `counts`, `digest`, `share`, tokens, `stage_s`, `worker`, `replaces`; or an error.
        """
        about = about_from_table(table)
        if "error" in about or "warnings" in about:
            return table
        if self.failure is not None:
            return self.failure
        try:
            return table_from_result(self.explain(unit_from_table(table)))
        except WyrError as error:
            return table_from_error(error)

    def explain(self, unit: Unit) -> dict[str, Any]:
        """Write a unit's part, unless that is there; returns what became of it. Raises: WyrError."""
        path = Path(self.orders.parts) / PART_NAME.format(unit.number)
        stats = RunStats()
        counts = self._counts_in(path, unit)
        if counts is None:
            self._write(path, unit, stats)
            counts = stats.counts
        result = {
            "unit": unit.number,
            "counts": counts.as_json(),
            "digest": list(unit.digest),
            "share": unit.share,
            "n_run_tokens": stats.n_run_tokens,
            "n_padded_tokens": stats.n_padded_tokens,
            "n_repeats": stats.n_repeats,
            "stage_s": stats.stage_s,
            "worker": f"{socket.gethostname()}, process {os.getpid()}",
            "replaces": self.replaces,
        }
        self.replaces = False
        return result

    def _counts_in(self, path: Path, unit: Unit) -> Counts | None:
        """Return what a part counts that an attempt before this one finished; None if there is none."""
        if not path.exists():
            return None
        about = Fields(footer_of(path).get("wyr_part", {}), f"{path}, footer", OutputError)
        wanted = (unit.first_read, list(unit.digest), self.orders.run_key)
        if (about.content.get("first_read"), about.content.get("digest"), about.content.get("run")) != wanted:
            return None
        return Counts.from_json(about.object("counts"))

    def _write(self, path: Path, unit: Unit, stats: RunStats) -> None:
        deaths = len(list(path.parent.glob(f"{path.name}.*.partial")))
        if deaths > MAX_DEATHS:
            raise EngineError(
                f"{path.name}, {KINDS[self.job.kind].rows} from {unit.first_read + 1:,}",
                f"{deaths} workers that died on them",
                "rows",
                "If memory is short, give -b a smaller number, or -t a larger one, for fewer workers a machine.",
            )
        footer = (self.orders.run or {})["footer"]
        writer = MaskWriter(path, self.job.rows.schema, footer, attempt=f".{uuid.uuid4().hex[:8]}")

        def write(batch: pa.RecordBatch, counts: Counts, digest: tuple[int, ...]) -> None:
            writer.write(batch)

        chunks = ((chunk, unit.digest) for chunk in unit.chunks)
        try:
            explain_reads(chunks, self.planner, self.steps, self.job.rows, write, stats)
        except BaseException:
            writer.discard()
            raise
        if stats.n_reads != unit.n_reads:
            raise AssertionError(f"{path}: {stats.n_reads} rows of {unit.n_reads} reads")
        about = {"first_read": unit.first_read, "counts": stats.counts.as_json(), "digest": list(unit.digest)}
        writer.commit(part={**about, "run": self.orders.run_key})


def _same_bundle(orders: WorkerConfig) -> Bundle:
    """Load the bundle. Raises: ModelError if it, or this package, is not the one where the command was typed."""
    bundle = load_bundle(orders.config.model)
    for what, here, there in (
        ("wyr-batch", __version__, orders.version),
        (str(bundle.folder), bundle.sha256, orders.bundle_sha256),
    ):
        if here != there:
            raise ModelError(
                f"{what} on {socket.gethostname()}",
                here[:16],
                f"{there[:16]}, as where the command was typed",
                "Give every machine of the cluster the same.",
            )
    return bundle


def _engines(orders: WorkerConfig, bundle: Bundle) -> list[Engine]:
    config = orders.config
    return open_engines(bundle, config.engine_request)
