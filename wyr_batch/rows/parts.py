"""The output of a run as parts, so that whatever ends it, what is finished stays and --resume goes on after it.

    masks.parquet.parts/                    beside the output; or the output itself, if that is a directory
        _run.json                            what the run is, see manifest.py; gone once a directory is finished
        part-000000.parquet                 rows 0 to n, whole and on the disk
        part-000001.parquet.partial         the part in hand

A part is a Parquet file of whole chunks of reads. Its footer says where it starts, what it counts, and the checksums
of all reads up to its end; there is no other list of parts, so nothing can disagree with them. When the last read is
written, parts are joined to the one file that was asked for, and go; a single part is renamed to it. Of a directory
they are the dataset: the footer of the last one describes the run, and nothing but Parquet files is left, since polars
and DuckDB read every file of a folder, whatever its name. What is not ours is never touched, see folder.py.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, shown_path, sync_folder, write_error
from wyr_batch.errors import OutputError
from wyr_batch.rows.counts import Counts
from wyr_batch.rows.folder import (
    JOINED_NAME,
    LOCK_NAME,
    PART_NAME,
    check_output,
    footer_of,
    lock_folder,
    ours_in,
    part_fields,
    partials_in,
    parts_folder,
    parts_in,
    real_output,
)
from wyr_batch.rows.join import DamagedPart, UnknownField, join_parquet
from wyr_batch.rows.manifest import MANIFEST_NAME, check_same_run, read_manifest, run_from, write_manifest
from wyr_batch.rows.writer import MaskWriter, footer_metadata

PART_ROWS = 131_072
PART_S = 30.0

logger = logging.getLogger(__name__)


class Parts:
    """Finished parts of a run and the one in hand.

    Attributes:
        counts: of all rows in finished parts.
        digest: checksums of the reads in them, see `reads.digest.ReadsDigest`.
        finished: the output is there already; nothing is left to do.
    """

    def __init__(
        self,
        output: Path,
        schema: pa.Schema,
        run: Mapping[str, Any],
        *,
        dataset: bool = False,
        resume: bool = False,
        overwrite: bool = False,
        part_s: float = PART_S,
        keep_later: bool = False,
    ) -> None:
        """
        Args:
            run: the manifest: version, inputs, bundle_sha256, options, footer.
            dataset: the output is a directory of parts.
            keep_later: workers of a cluster write parts in any order, so one may be missing before others: those
                stay, for the workers to look at. False removes them, as they would be in the way.
        Raises: OutputError, UsageError if there is something that may not be replaced or continued.
        """
        self.output = output if dataset else real_output(output)
        self.schema, self.run, self.dataset, self.part_s = schema, dict(run), dataset, part_s
        self.folder = output if dataset else parts_folder(output)
        self.counts = Counts()
        self.digest: tuple[int, ...] = (0, 0, 0)
        self.finished = False
        self._keep_later = keep_later
        self._rates: dict[str, Any] = {}
        self._paths: list[Path] = []
        self._lock: IO[str] | None = None
        self._writer: MaskWriter | None = None
        self._in_hand, self._began = Counts(), 0.0
        self._in_hand_digest: tuple[int, ...] = (0, 0, 0)
        check_output(output, dataset, resume or overwrite)
        if resume and not dataset and exists(output, OutputError):
            self._take_finished(footer_of(output))
            return
        self._lock = lock_folder(self.folder)
        try:
            self._begin(resume)
        except BaseException:
            self._unlock()
            raise

    def _begin(self, resume: bool) -> None:
        before = read_manifest(self.folder) if resume else None
        if before:
            check_same_run(self.folder, before, self.run)
            self._load()
        elif resume and (parts := parts_in(self.folder)):
            self._take_finished(footer_of(parts[-1]))
        else:
            if resume:
                logger.info("--resume: nothing has been finished yet, so this is the whole run.")
            self._remove(self._ours_but_the_lock())
        if self.finished:
            if before:
                self._remove([*partials_in(self.folder), self.folder / MANIFEST_NAME])
            self._unlock()
        else:
            write_manifest(self.folder, self.run)

    def _take_finished(self, made: dict[str, Any]) -> None:
        """The output is there: check that this very run made it."""
        where = f"{shown_path(self.output)}, footer"
        if "wyr_run" not in made:
            raise OutputError(
                where,
                "no description of a run",
                "that of this one: --resume cannot go on with it",
                "Use --overwrite to replace it.",
            )
        fields = Fields(made, where, OutputError, "Use --overwrite.")
        check_same_run(self.output, run_from(fields.object("wyr_run")), self.run)
        self.counts = Counts.from_json(fields.object("wyr_counts"))
        self.finished = True

    def _load(self) -> None:
        """Take over the finished parts of an earlier run."""
        self._remove(partials_in(self.folder))
        self._count_there()
        if self._paths and "wyr_run" in footer_of(self._paths[-1]):
            self.finished = self.dataset  # killed between its last part and its end
        elif not self._keep_later:
            self._remove(set(parts_in(self.folder)) - set(self._paths))

    def _count_there(self) -> None:
        """Count the parts that are there, up to the first that is missing."""
        while exists(path := self.part_path(self.n_parts), OutputError):
            about = part_fields(path)
            if about.whole("first_read") != self.counts.n_reads:
                raise OutputError(shown_path(path), "a part of another run", "the next", "Use --overwrite.")
            self.counts += Counts.from_json(about.object("counts"))
            self.digest = tuple(about.wholes("digest"))
            self._paths.append(path)

    def _ours_but_the_lock(self) -> set[Path]:
        return set(ours_in(self.folder)) - {self.folder / LOCK_NAME}

    @staticmethod
    def _remove(paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    @property
    def n_parts(self) -> int:
        """Finished parts."""
        return len(self._paths)

    def part_path(self, number: int) -> Path:
        """Return the name of a part, counted from 0."""
        return self.folder / PART_NAME.format(number)

    def take(self, counts: Counts, digest: tuple[int, ...]) -> None:
        """Count the next part, which a worker has written under its name; arguments as in `write`, of all its reads."""
        self._paths.append(self.part_path(self.n_parts))
        self.counts += counts
        self.digest = digest

    def write(self, batch: pa.RecordBatch, counts: Counts, digest: tuple[int, ...]) -> None:
        """Take the rows of one chunk. Raises: OutputError.

        Args:
            counts: of this chunk.
            digest: checksums of all reads up to its end.
        """
        if self._writer is None:
            self._began = time.monotonic()
            self._writer = MaskWriter(self.part_path(self.n_parts), self.schema, self.run["footer"])
        self._writer.write(batch)
        self._in_hand += counts
        self._in_hand_digest = digest
        if self._in_hand.n_reads >= PART_ROWS or time.monotonic() - self._began >= self.part_s:
            self.finish_part()

    def finish_part(self, *, last: bool = False) -> None:
        """Close the part in hand and give it its name. Raises: OutputError; the part is then gone.

        Args:
            last: the run ends with it, so its footer describes the run: that of a dataset, or of a file of one part.
        """
        writer, counts, digest = self._writer, self._in_hand, self._in_hand_digest
        self._writer, self._in_hand = None, Counts()
        if writer is None:
            return
        about = {"first_read": self.counts.n_reads, "counts": counts.as_json(), "digest": list(digest)}
        self.counts += counts
        whole = self._about_run(self.counts) if last and (self.dataset or not self._paths) else {}
        writer.commit(part=about, **whole)
        self._paths.append(writer.output)
        self.digest = digest

    def commit(self, rates: Mapping[str, Any] | None = None) -> None:
        """Finish the last part, and make the output of all parts. Raises: OutputError; parts then stay.

        Args:
            rates: how fast the run was, for the footer's `wyr_rates`; see `RunStats.rates`.
        """
        self._rates = dict(rates or {})
        in_hand = self._writer is not None
        self.finish_part(last=True)
        self._check_there()
        if self.dataset:
            if not in_hand:
                self._write_last()
            self._remove(self._ours_but_the_lock() - set(self._paths))
            self._unlock()
            return
        if in_hand and self.n_parts == 1:
            self._rename_only_part()
        else:
            self._join()
        self._remove(self._ours_but_the_lock())
        self._unlock()
        with suppress(OSError):  # a file of others has come meanwhile
            self.folder.rmdir()

    def _check_there(self) -> None:
        """Raise OutputError if a worker has written a part to a folder that is not this one."""
        there = set(os.listdir(self.folder))
        if missing := [path for path in self._paths if path.name not in there]:
            raise OutputError(
                missing[0],
                f"no such part, nor {len(missing) - 1} others",
                "what workers wrote",
                "Name an -o on a file system that every machine of the cluster has.",
            )

    def _write_last(self) -> None:
        """Write a part without rows that ends a dataset: its footer says that the run is whole."""
        path = self.part_path(self.n_parts)
        about = {"first_read": self.counts.n_reads, "counts": Counts().as_json(), "digest": list(self.digest)}
        MaskWriter(path, self.schema, self.run["footer"]).commit(part=about, **self._about_run(self.counts))
        self._paths.append(path)

    def _about_run(self, counts: Counts) -> dict[str, Any]:
        return {"run": self.run, "counts": counts.as_json()} | ({"rates": self._rates} if self._rates else {})

    def _rename_only_part(self) -> None:
        try:
            self._paths[0].replace(self.output)
            sync_folder(self.output.absolute().parent)
        except OSError as error:
            raise write_error(self.output, error) from None

    def _join(self) -> None:
        partial = self.folder / JOINED_NAME
        schema = self.schema.with_metadata(footer_metadata(self.run["footer"]))
        crc32s = [part_fields(path).whole("data_crc32", -1) for path in self._paths]
        try:
            with partial.open("wb") as file:
                known = [None if crc32 < 0 else crc32 for crc32 in crc32s]
                n_rows = join_parquet(self._paths, file, schema, self._about_run(self.counts), known)
                file.flush()
                os.fsync(file.fileno())
            if n_rows != self.counts.n_reads:
                raise OSError(f"{n_rows} rows of {self.counts.n_reads} reads")
            partial.replace(self.output)
            sync_folder(self.output.absolute().parent)
        except DamagedPart as damage:
            partial.unlink(missing_ok=True)
            raise OutputError(
                shown_path(damage.path),
                "other bytes than were written",
                "them unchanged: the disk, or something else, has damaged this part",
                "Delete it and run the same command with --resume.",
            ) from None
        except UnknownField as error:
            partial.unlink(missing_ok=True)
            raise OutputError(
                shown_path(self.folder),
                f"parts whose Parquet footers have a new {error}",
                "fields of parquet-format 2.13, which can be joined",
                "The parts are complete, and Parquet readers take the folder as it is.",
            ) from None
        except (OSError, pa.ArrowInvalid, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise write_error(self.output, error) from None
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def abandon(self, damaged: Sequence[str] = ()) -> None:
        """End before the end: finish the part in hand if that is possible; an empty folder goes.

        Args:
            damaged: inputs that ended the run; they may be other files when the run is resumed.
        """
        try:
            self.finish_part()
            if self._keep_later:  # workers may have finished parts that have not been heard of
                self._count_there()
            if damaged and self._paths:
                write_manifest(self.folder, {**self.run, "damaged": list(damaged)})
        except OutputError as error:
            logger.error("%s", error)
        self._remove(partials_in(self.folder))
        self._unlock()
        if not self._paths and not parts_in(self.folder):
            self._remove(ours_in(self.folder))
            with suppress(OSError):  # a worker that is being stopped may have a file there
                if not self.dataset or not any(self.folder.iterdir()):
                    self.folder.rmdir()

    def _unlock(self) -> None:
        if self._lock:
            (self.folder / LOCK_NAME).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
