"""What lies in a folder of parts, and which of it is this tool's: only that is ever replaced or removed.

    _run.json                       ours if it reads as a manifest (manifest.py)
    part-000000.parquet             ours if its footer has `wyr_part`; an unreadable one if the manifest is ours
    part-000001.parquet.partial     in hand when a run, or a cluster's worker, was killed: ours if the manifest is
    _lock                           ours if it is empty

A name alone makes nothing ours: other tools write part-*.parquet as well.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.checks.fields import Fields, parse_json
from wyr_batch.checks.files import is_folder, look_at, reason_of, shown_path
from wyr_batch.checks.outputs import FILE, FOLDER, Output, check_place
from wyr_batch.errors import OutputError
from wyr_batch.rows.manifest import MANIFEST_NAME, read_manifest

PART_NAME = "part-{:06d}.parquet"
LOCK_NAME, JOINED_NAME = "_lock", "_joined.partial"
_PART = re.compile(r"part-\d{6,}\.parquet")
_PARTIAL = re.compile(r"(part-\d{6,}\.parquet(\.[0-9a-f]{8})?|\.[0-9a-f]{12}|_joined)\.partial")


def real_output(output: Path) -> Path:
    """Return the file that an output is, or will be: what a link leads to, so that the link itself stays."""
    return Path(os.path.realpath(output)) if output.is_symlink() else output


def parts_folder(output: Path) -> Path:
    """Return where parts of a single output file are kept."""
    output = real_output(output)
    return output.with_name(output.name + ".parts")


def parts_in(folder: Path) -> list[Path]:
    """Return the finished parts of a folder, in order, whoever wrote them."""
    names = [name for name in _names(folder) if _PART.fullmatch(name)]
    return [folder / name for name in sorted(names, key=lambda name: (len(name), name))]  # part-1000000 comes last


def partials_in(folder: Path) -> list[Path]:
    """Return what was in hand when a run, or a worker, was killed."""
    return [folder / name for name in _names(folder) if _PARTIAL.fullmatch(name)]


def ours_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that this tool wrote. Raises: OutputError if it may not be looked at."""
    with_manifest = _has_manifest(folder)
    for name in _names(folder):
        if _is_ours(folder / name, with_manifest):
            yield folder / name


def foreign_in(folder: Path) -> str | None:
    """Return the name of a file in a folder that this tool did not write, None if there is none."""
    ours = {path.name for path in ours_in(folder)}
    return next((name for name in _names(folder) if name not in ours), None)


def check_output(output: Path, dataset: bool, may_exist: bool) -> None:
    """Refuse an output that is no place to write to, that exists, or whose folder holds files of others.

    Args:
        may_exist: --overwrite or --resume.
    Raises: UsageError, OutputError.
    """
    check_place(Output("-o", output, FOLDER if dataset else FILE))
    folder = output if dataset else parts_folder(output)
    shown = shown_path(folder)
    there = look_at(folder, OutputError)
    if there and not is_folder(folder, OutputError):
        raise OutputError(shown, "a file", "a folder for parts, or nothing", "Move it, or name another -o.")
    if there and (foreign := foreign_in(folder)) is not None:
        advice = f"Name a file in it, as {shown}/masks.parquet, or another folder." if dataset else "Move it elsewhere."
        raise OutputError(
            shown, f"a folder that holds {shown_path(foreign)}, which this tool did not write", "an empty one", advice
        )
    if may_exist:
        return
    if not dataset and look_at(output, OutputError):
        raise OutputError(shown_path(output), "a file that exists", "a new name", "Use --overwrite to replace it.")
    if there and (_names(folder) or not dataset):
        what = "a folder with rows of a run" if dataset else "parts of a run that did not end"
        raise OutputError(shown, what, "none", "Use --resume to go on with it, or --overwrite to start anew.")


def lock_folder(folder: Path) -> IO[str]:
    """Make the folder and lock it against a second run; where locks are not supported, go on without.

    Raises: OutputError.
    """
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / LOCK_NAME).open("a")
    except OSError as error:
        got = reason_of(error)
        raise OutputError(shown_path(folder), f"'{got}'", "a folder to write parts to", "Mend that.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise OutputError(
            shown_path(folder), "a run that is still writing there", "none", "Wait for it, or stop it."
        ) from None
    except OSError:
        pass  # some network file systems have no locks
    return lock


def footer_of(path: Path) -> dict[str, Any]:
    """Return the JSON that this tool keeps in a Parquet file's footer: keys `wyr`, `wyr_part`, `wyr_run`, `wyr_counts`.

    Raises: OutputError if it is no readable Parquet file, or holds something else under these keys.
    """
    try:
        with path.open("rb") as file:  # not by name: Arrow takes no name that is not UTF-8
            metadata = pq.read_metadata(file).metadata or {}
        return {key.decode(): parse_json(value) for key, value in metadata.items() if key.startswith(b"wyr")}
    except (OSError, pa.ArrowException, ValueError) as error:
        got = str(error)[:100]
        raise OutputError(shown_path(path), f"'{got}'", "a Parquet file of this tool") from None


def part_fields(path: Path) -> Fields:
    """Return what a part's footer says of it. Raises: OutputError if it is none of ours."""
    about = footer_of(path).get("wyr_part")
    return Fields(about, f"{shown_path(path)}, footer wyr_part", OutputError, "Use --overwrite.")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder)) if is_folder(folder, OutputError) else []
    except OSError as error:
        got = reason_of(error)
        raise OutputError(shown_path(folder), f"'{got}'", "a folder that can be listed") from None


def _has_manifest(folder: Path) -> bool:
    with suppress(OutputError):
        return read_manifest(folder) is not None
    return False


def _is_ours(path: Path, with_manifest: bool) -> bool:
    if path.name == MANIFEST_NAME:
        return with_manifest
    if path.name == LOCK_NAME:
        return path.stat().st_size == 0
    if _PARTIAL.fullmatch(path.name):
        return with_manifest
    if not _PART.fullmatch(path.name):
        return False
    try:
        return "wyr_part" in footer_of(path)
    except OutputError:
        return with_manifest
