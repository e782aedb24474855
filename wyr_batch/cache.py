"""Files that are made once per machine: TensorRT plans, timing caches, and proofs of GPU engines.

    ~/.cache/wyr-batch/            WYR_CACHE, else XDG_CACHE_HOME/wyr-batch, else this
      plans/NAME-KEY.plan          with NAME-KEY.json beside it: the whole key, and the plan's sha256
      proofs/NAME-KEY.json         the key, the record, rows/s
      timing-TENSORRT-GPU.cache

KEY is a hash of everything the file depends on. What is looked for under another key is not found, and `nearest` says
what differs. A plan holds code that TensorRT runs: the folder is the user's own, and a plan is loaded only if it is
the file that was written here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import write_error, write_whole
from wyr_batch.errors import ModelError, OutputError

Key = Mapping[str, Any]


def cache_folder() -> Path:
    """Return where files that can be made again are kept."""
    if named := os.environ.get("WYR_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wyr-batch"


def slug(text: str) -> str:
    """Return a text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_") or "unnamed"


def keyed_path(kind: str, name: str, key: Key, suffix: str) -> Path:
    """Return where the file of that kind ('plans', 'proofs') and key lies, or would."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / f"{slug(name)}-{digest[:16]}{suffix}"


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all. Raises: OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, content)
    except (OSError, OutputError) as error:
        problem = error if isinstance(error, OutputError) else write_error(path, error)
        advice = f"{problem.advice} WYR_CACHE names the folder."
        raise OutputError(problem.where, problem.got, problem.expected, advice) from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None if there is none that can be read."""
    try:
        return Fields.read(path, ModelError).content
    except ModelError:
        return None


def save_plan(name: str, key: Key, plan: bytes, facts: Mapping[str, Any]) -> Path:
    """Write a plan and its sidecar; `facts` go into it. Returns the plan's path. Raises: OutputError."""
    path = keyed_path("plans", name, key, ".plan")
    write_file(path, plan)
    sidecar = {"key": key, "plan_sha256": hashlib.sha256(plan).hexdigest(), **facts}
    write_file(path.with_suffix(".json"), (json.dumps(sidecar, indent=2) + "\n").encode())
    return path


def find_plan(name: str, key: Key) -> tuple[bytes | None, str]:
    """Return the plan of that key, or None and why there is none that can be used."""
    path = keyed_path("plans", name, key, ".plan")
    sidecar = read_json(path.with_suffix(".json")) or {}
    their_key = sidecar.get("key")
    if not isinstance(their_key, dict) or not os.path.isfile(path):
        return None, nearest(path, name, key)
    if differing := differences(their_key, key):
        return None, f"{path.name} differs in {differing}"
    try:
        plan = path.read_bytes()
    except OSError as error:
        return None, f"{path.name} cannot be read: {error.strerror}"
    if hashlib.sha256(plan).hexdigest() != sidecar.get("plan_sha256"):
        return None, f"{path.name} is not the file that was written"
    return plan, ""


def nearest(path: Path, name: str, key: Key) -> str:
    """Say what differs between a wanted key and the likest plan of that name, in a few words."""
    found: list[tuple[int, str]] = []
    for other in sorted(path.parent.glob(f"{slug(name)}-*.json")):
        theirs = (read_json(other) or {}).get("key")
        if isinstance(theirs, dict) and os.path.isfile(other.with_suffix(".plan")):
            n = sum(theirs.get(field) != value for field, value in _plain(key).items())
            found.append((n, f"{other.stem}.plan differs in {differences(theirs, key)}"))
    return min(found)[1] if found else f"none of {name} has been built here"


def differences(their_key: Key, our_key: Key) -> str:
    """Name the fields in which a key differs, with both values; empty if it does not."""
    theirs, ours = _plain(their_key), _plain(our_key)
    fields = [field for field in {**ours, **theirs} if theirs.get(field) != ours.get(field)]
    pairs = ((field, _short(theirs.get(field)), _short(ours.get(field))) for field in fields)
    return "; ".join(f"{field}: got {found}, expected {wanted}" for field, found, wanted in pairs)


def _plain(key: Key) -> dict[str, Any]:
    """Return a key as JSON gives it back, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(key))
    return plain


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
