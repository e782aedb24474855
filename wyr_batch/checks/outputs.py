"""Where a command may write: checked before any work, for every path that it writes.

No output replaces an input, another output, a model, a device, a pipe, or a folder that is not this tool's. Paths are
compared as files, so that a link or another spelling of a name does not hide what they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from wyr_batch.checks.files import is_folder, kind_of, look_at, shown_path
from wyr_batch.errors import OutputError, UsageError

FILE, FOLDER, TEXT = "file", "folder", "text"


@dataclass(frozen=True, slots=True)
class Output:
    """A path that a command writes.

    Attributes:
        flag: the option that names it.
        kind: FILE and FOLDER appear under their name when they are whole; TEXT may also go into a device or pipe.
        makes_parents: folders above it are made.
    """

    flag: str
    path: Path
    kind: str = FILE
    makes_parents: bool = False

    @property
    def shown(self) -> str:
        return f"{self.flag} {shown_path(self.path)}"


@dataclass(frozen=True, slots=True)
class Source:
    """A path that a command reads: `what` names it in messages; `-` is standard input."""

    what: str
    path: str | Path


def check_outputs(outputs: Sequence[Output], sources: Sequence[Source]) -> None:
    """Refuse outputs that would harm something. Raises: UsageError, OutputError."""
    for output in outputs:
        check_place(output)
        for source in sources:
            _check_apart(output, source)
    for one, other in combinations(outputs, 2):
        if _same(one.path, other.path):
            raise UsageError(other.shown, f"the path of {one.flag} as well", "one of its own")
        for inner, outer in ((one, other), (other, one)):
            if outer.kind == FOLDER and _inside(inner.path, outer.path):
                raise UsageError(
                    inner.shown, f"a path in the folder of {outer.flag}", "one outside it", "Name another place."
                )


def check_place(output: Output) -> None:
    """Refuse a path that nothing can be written to, or whose kind is another. Raises: UsageError, OutputError."""
    text = str(output.path)
    if text == "-":
        raise UsageError(output.flag, "-", f"the name of a {output.kind}: this output is no stream")
    if text == "" or os.fspath(output.path) == "":
        raise UsageError(output.flag, "an empty name", f"the name of a {output.kind}")
    status = look_at(output.path, OutputError)
    if status is None:
        _check_parent(output)
        return
    is_dir = stat.S_ISDIR(status.st_mode)
    if output.kind == FOLDER and not is_dir:
        raise OutputError(output.shown, kind_of(status), "a folder or a new name")
    if output.kind != FOLDER and is_dir:
        raise OutputError(output.shown, "a folder", "a file or a new name")
    if output.kind == FILE and not stat.S_ISREG(status.st_mode):
        raise OutputError(output.shown, kind_of(status), "a file or a new name: it is never replaced")
    if not os.access(output.path, os.W_OK):
        raise OutputError(output.shown, "no right to write there", "one", "Mend that, or name another.")
    if output.kind != FOLDER and stat.S_ISREG(status.st_mode):
        _check_parent(output)


def _check_parent(output: Output) -> None:
    """Raise OutputError unless the file can be made in its folder."""
    parent = Path(os.path.realpath(output.path)).parent
    while output.makes_parents and look_at(parent, OutputError) is None:
        parent = parent.parent
    if not is_folder(parent, OutputError):
        advice = f"Make it: mkdir -p {shown_path(parent)}" if look_at(parent, OutputError) is None else ""
        raise OutputError(output.shown, f"no folder {shown_path(parent)}", "one to write to", advice)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            output.shown, f"no right to write in {shown_path(parent)}", "one", "Mend that, or name another."
        )


def _check_apart(output: Output, source: Source) -> None:
    if source.path == "-":
        status = _stdin_status()
        there = look_at(output.path, OutputError)
        if status and there and stat.S_ISREG(status.st_mode) and os.path.samestat(status, there):
            raise UsageError(output.shown, "the file that standard input comes from", "another one")
        return
    if _same(output.path, source.path):
        raise UsageError(
            output.shown,
            f"{source.what} {shown_path(source.path)} itself",
            "another path: an output never replaces what is read",
        )
    if is_folder(source.path) and _inside(output.path, source.path):
        raise UsageError(output.shown, f"a path in {source.what} {shown_path(source.path)}", "one outside it")
    if output.kind == FOLDER and _inside(source.path, output.path):
        raise UsageError(output.shown, f"a folder that holds {source.what} {shown_path(source.path)}", "another one")


def _stdin_status() -> os.stat_result | None:
    try:
        return os.fstat(0)
    except OSError:
        return None


def _same(one: str | Path, other: str | Path) -> bool:
    first, second = look_at(one, OutputError), look_at(other, OutputError)
    if first and second:
        return os.path.samestat(first, second)
    return os.path.realpath(one) == os.path.realpath(other)


def _inside(path: str | Path, folder: str | Path) -> bool:
    """True if a path lies in a folder, at any depth."""
    outer = os.path.realpath(folder)
    inner = os.path.realpath(path)
    return inner != outer and inner.startswith(outer.rstrip(os.sep) + os.sep)
