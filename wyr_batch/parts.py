"""The output of a run as parts, so that whatever ends it, what is finished stays and --resume goes on after it.

    masks.parquet.parts/                    beside the output; or the output itself, if that is a directory
        _run.json                            what the run is, see manifest.py
        part-000000.parquet                 rows 0 to n, whole and on the disk
        part-000001.parquet.partial         the part in hand

A part is a Parquet file of whole chunks of reads. Its footer says where it starts, what it counts, and the checksums
of all reads up to its end; there is no other list of parts, so nothing can disagree with them. When the last read is
written, parts are joined to the one file that was asked for, and go; a single part is renamed to it. Of a directory
they are the dataset.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.config import PART_S
from wyr_batch.counts import Counts
from wyr_batch.errors import OutputError
from wyr_batch.manifest import MANIFEST_NAME, check_same_run, read_manifest, sync_folder, write_manifest
from wyr_batch.parquetjoin import join_parquet
from wyr_batch.writer import MaskWriter, footer_metadata, write_error

PART_ROWS = 131_072
PART_NAME = "part-{:06d}.parquet"

logger = logging.getLogger("wyr_batch")


class Parts:
    """Finished parts of a run and the one in hand.

    Attributes:
        counts: of all rows in finished parts.
        digest: checksums of the reads in them, see `manifest.ReadsDigest`.
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
        self.output, self.schema, self.run, self.dataset, self.part_s = output, schema, dict(run), dataset, part_s
        self.folder = output if dataset else parts_folder(output)
        self.counts = Counts()
        self.digest: tuple[int, ...] = (0, 0, 0)
        self.finished = False
        self._keep_later = keep_later
        self._paths: list[Path] = []
        self._lock: IO[str] | None = None
        self._writer: MaskWriter | None = None
        self._in_hand, self._began = Counts(), 0.0
        self._in_hand_digest: tuple[int, ...] = (0, 0, 0)
        check_output(output, dataset, resume or overwrite)
        if resume and not dataset and output.exists():
            self._take_finished()
            return
        self._lock = self._open_folder()
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
            self.finished = bool(before.get("finished"))
        else:
            if resume:
                logger.info("--resume: nothing has been finished yet, so this is the whole run.")
            self._clear()
        if self.finished:
            self._unlock()
        else:
            write_manifest(self.folder, self.run)

    def _take_finished(self) -> None:
        """The output file is there: check that this very run made it."""
        made = footer_of(self.output)
        if "wyr_run" not in made:
            raise OutputError(
                f"{self.output}: got a file that --resume cannot go on with. Use --overwrite to replace it."
            )
        check_same_run(self.output, made["wyr_run"], self.run)
        self.counts = Counts.from_json(made["wyr_counts"])
        self.finished = True

    def _open_folder(self) -> IO[str] | None:
        """Make the folder and lock it against a second run; where locks are not supported, go on without."""
        try:
            self.folder.mkdir(exist_ok=True)
            lock = (self.folder / "_lock").open("w")
        except OSError as error:
            got = error.strerror or error
            raise OutputError(f"{self.folder}: got '{got}', expected a folder to write parts to. Mend that.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise OutputError(
                f"{self.folder}: got a run that is still writing there, expected none. Wait for it, or stop it."
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        return lock

    def _clear(self) -> None:
        for path in (*self.folder.glob("part-*.parquet*"), self.folder / MANIFEST_NAME):
            path.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take over the finished parts of an earlier run."""
        self._remove_stale()
        self._count_there()
        if not self._keep_later:
            self._remove_later()

    def _count_there(self) -> None:
        """Count the parts that are there, up to the first that is missing."""
        while (path := self.part_path(self.n_parts)).exists():
            about = footer_of(path).get("wyr_part")
            if about is None or about["first_read"] != self.counts.n_reads:
                raise OutputError(f"{path}: got a part of another run, expected the next one. Use --overwrite.")
            self.counts += Counts.from_json(about["counts"])
            self.digest = tuple(about["digest"])
            self._paths.append(path)

    def _remove_stale(self) -> None:
        """Remove what was in hand when a run, or a worker, was killed."""
        for stale in self.folder.glob("part-*.partial"):
            stale.unlink(missing_ok=True)

    def _remove_later(self) -> None:
        """Remove the parts that come after a missing one."""
        counted = set(self._paths)
        for path in self.folder.glob("part-*.parquet"):
            if path not in counted:
                path.unlink()

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
            last: the run ends with it, so if it is also the first, its footer says what that of the output has to.
        """
        writer, counts, digest = self._writer, self._in_hand, self._in_hand_digest
        self._writer, self._in_hand = None, Counts()
        if writer is None:
            return
        about = {"first_read": self.counts.n_reads, "counts": counts.as_json(), "digest": list(digest)}
        whole = self._about_run(counts) if last and not self._paths else {}
        writer.commit(part=about, **whole)
        self._paths.append(writer.output)
        self.counts += counts
        self.digest = digest

    def commit(self) -> None:
        """Finish the last part, and make the output of all parts. Raises: OutputError; parts then stay."""
        in_hand = self._writer is not None
        self.finish_part(last=True)
        self._check_there()
        self._remove_stale()
        if self.dataset:
            self._remove_later()
            if not self._paths:  # a dataset without reads still has its columns
                self._write_empty(self.part_path(0))
            write_manifest(self.folder, {**self.run, "finished": True, "counts": self.counts.as_json()})
            self._unlock()
            return
        if in_hand and self.n_parts == 1:
            self._rename_only_part()
        else:
            self._join()
        self._unlock()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_there(self) -> None:
        """Raise OutputError if a worker has written a part to a folder that is not this one."""
        there = set(os.listdir(self.folder))
        if missing := [path for path in self._paths if path.name not in there]:
            raise OutputError(
                f"{missing[0]}: got no such part, nor {len(missing) - 1} others, expected what workers wrote. "
                "Name an -o on a file system that every machine of the cluster has."
            )

    def _write_empty(self, path: Path) -> None:
        about = {"first_read": 0, "counts": Counts().as_json(), "digest": [0, 0, 0]}
        MaskWriter(path, self.schema, self.run["footer"]).commit(part=about)

    def _about_run(self, counts: Counts) -> dict[str, Any]:
        return {"run": self.run, "counts": counts.as_json()}

    def _rename_only_part(self) -> None:
        try:
            self._paths[0].replace(self.output)
            sync_folder(self.output.absolute().parent)
        except OSError as error:
            raise write_error(self.output, error) from None

    def _join(self) -> None:
        partial = self.output.with_name(self.output.name + ".partial")
        schema = self.schema.with_metadata(footer_metadata(self.run["footer"]))
        try:
            with partial.open("wb") as file:
                n_rows = join_parquet(self._paths, file, schema, self._about_run(self.counts))
                file.flush()
                os.fsync(file.fileno())
            if n_rows != self.counts.n_reads:
                raise OSError(f"{n_rows} rows of {self.counts.n_reads} reads")
            partial.replace(self.output)
            sync_folder(self.output.absolute().parent)
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
        self._remove_stale()
        self._unlock()
        if not any(self.folder.glob("part-*.parquet")):
            self._clear()
            with suppress(OSError):  # a worker that is being stopped may have a file there
                if not self.dataset or not any(self.folder.iterdir()):
                    self.folder.rmdir()

    def _unlock(self) -> None:
        if self._lock:
            (self.folder / "_lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def parts_folder(output: Path) -> Path:
    """Return where parts of a single output file are kept."""
    return output.with_name(output.name + ".parts")


def footer_of(path: Path) -> dict[str, Any]:
    """Return the JSON that this tool keeps in a Parquet file's footer: keys `wyr`, `wyr_part`, `wyr_run`, `wyr_counts`.

    Raises: OutputError if it is no readable Parquet file.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise OutputError(f"{path}: got '{str(error)[:100]}', expected a Parquet file. Use --overwrite.") from None
    return {key.decode(): json.loads(value) for key, value in metadata.items() if key.startswith(b"wyr")}


def check_output(output: Path, dataset: bool, may_exist: bool) -> None:
    """Refuse an output that exists, whose folder does not, or that holds files of others. Raises: OutputError."""
    if not output.absolute().parent.is_dir():
        raise OutputError(
            f"{output}: got no folder {output.parent}, expected one to write to. Make it: mkdir -p {output.parent}"
        )
    if dataset:
        names = sorted(os.listdir(output)) if output.is_dir() else []
        foreign = [name for name in names if not name.startswith(("part-", MANIFEST_NAME, "_lock", "_run.partial"))]
        if output.exists() and not output.is_dir():
            raise OutputError(f"{output}: got a file, expected a directory or a new name, as the name ends in /.")
        if foreign:
            raise OutputError(
                f"{output}: got a directory that holds {foreign[0]}, expected an empty one. Name a file in it, as "
                f"{output}/masks.parquet, or another directory."
            )
        if names and not may_exist:
            raise OutputError(
                f"{output}: got a directory with rows of a run, expected an empty one. Use --resume to go on with it, "
                "or --overwrite to replace it."
            )
        return
    if output.exists() and not may_exist:
        raise OutputError(f"{output}: got a file that exists, expected a new name. Use --overwrite to replace it.")
    folder = parts_folder(output)
    if folder.exists() and not may_exist:
        raise OutputError(
            f"{folder}: got parts of a run that did not end, expected none. Use --resume to go on with it, or "
            "--overwrite to start anew."
        )
