"""What a run is: its inputs, bundle and options. `_run.json` holds it, so that --resume goes on with the same run only.

An input is known by its size and a hash of its head; its time may change (a copy, a touch). Besides, every finished
part keeps checksums of all reads so far, and a resumed run compares them with the reads it passes over: exactly-once
rests on those.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, shown_path, write_whole
from wyr_batch.errors import OutputError, UsageError

MANIFEST_NAME = "_run.json"
SCHEMA_VERSION = 1
_HEAD_BYTES, _FOLDER_HEAD_BYTES = 1 << 20, 1 << 16


def describe_input(path: str) -> dict[str, Any]:
    """Return what an input is known by: its name, for a regular file its size and the sha256 of its first MiB.

    A folder is known by the sizes of the files in it, and the sha256 of their names, sizes and first 64 KiB.
    """
    described: dict[str, Any] = {"path": shown_path(path)}
    try:
        status = os.stat(path) if path != "-" else None
        if status and stat.S_ISREG(status.st_mode):
            head = _head(path, _HEAD_BYTES)
            described |= {"bytes": status.st_size, "head_sha256": hashlib.sha256(head).hexdigest()}
        elif status and stat.S_ISDIR(status.st_mode):
            files = sorted((entry for entry in os.scandir(path) if entry.is_file()), key=lambda entry: entry.name)
            content = hashlib.sha256()
            for entry in files:
                content.update(f"{shown_path(entry.name)}\0{entry.stat().st_size}\0".encode())
                content.update(_head(entry.path, _FOLDER_HEAD_BYTES))
            n_bytes = sum(entry.stat().st_size for entry in files)
            described |= {"bytes": n_bytes, "head_sha256": content.hexdigest()}
    except OSError:
        pass  # opening it will say what is wrong
    return described


def _head(path: str, n_bytes: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(n_bytes)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in what a run differs from the one its parts were made by, one line each.

    A file in which the earlier run met damage may have been replaced: only its name has to be the same.
    """
    found = []
    for key in ("version", "bundle_sha256"):
        if then.get(key) != now.get(key):
            found.append(f"{key}: was {then.get(key)}, is {now.get(key)}")
    old, new = then.get("inputs", []), now["inputs"]
    if [item["path"] for item in old] != [item["path"] for item in new]:
        names = [" ".join(item["path"] for item in items) for items in (old, new)]
        found.append(f"inputs: were {names[0]}, are {names[1]}")
    else:
        for was, here in zip(old, new, strict=True):
            if was["path"] not in then.get("damaged", []):
                changed = [key for key in ("bytes", "head_sha256") if was.get(key) != here.get(key)]
                found += [f"{was['path']}: {key} was {was.get(key)}, is {here.get(key)}" for key in changed]
    before, after = then.get("options", {}), now["options"]
    found += [
        f"{key}: was {before.get(key)}, is {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return found


def check_same_run(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError naming every difference, unless both are the same run."""
    if found := differences(then, now):
        raise UsageError(
            "--resume",
            f"another run than the one that {folder} belongs to ({'; '.join(found)})",
            "the same inputs, model and options",
            "Mend that, or start anew with --overwrite.",
        )


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write _run.json so that it is whole or not there, even after a power cut. Raises: OutputError."""
    write_whole(folder / MANIFEST_NAME, json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what _run.json of a folder holds, None if there is none. Raises: OutputError if it is not one of ours."""
    path = folder / MANIFEST_NAME
    if not exists(path, OutputError):
        return None
    fields = Fields.read(path, OutputError, "Use --overwrite.")
    version = fields.whole("schema_version")
    if version != SCHEMA_VERSION:
        advice = "Resume with the wyr-batch that began the run, or use --overwrite."
        raise OutputError(path, f"schema_version {version}", SCHEMA_VERSION, advice)
    return run_from(fields)


def run_from(fields: Fields) -> dict[str, Any]:
    """Return the description of a run, from _run.json or a footer. Raises: as `fields` does."""
    for name in ("version", "bundle_sha256"):
        fields.text(name)
    for name in ("options", "footer"):
        fields.mapping(name)
    for entry in fields.objects("inputs"):
        entry.text("path")
    fields.texts("damaged", [])
    return fields.content
