"""Files as this tool looks at, reads and writes them.

Looking never ends in a raw OSError, text is UTF-8 whatever the locale, and what is written appears whole or not at all.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wyr_batch.errors import InputError, OutputError, WyrError


def look_at(path: str | Path, error: type[WyrError] = InputError) -> os.stat_result | None:
    """Return what stat says of a path, None if nothing is there.

    Raises: `error` if the path may not be looked at: no right to enter a folder, a name too long.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        raise error(
            shown_path(path),
            f"'{reason_of(problem)}'",
            "a path that can be looked at",
            "Check the name, and the rights of its folders.",
        ) from None


def exists(path: str | Path, error: type[WyrError] = InputError) -> bool:
    """True if something is there; raises as `look_at`."""
    return look_at(path, error) is not None


def is_file(path: str | Path, error: type[WyrError] = InputError) -> bool:
    """True if a regular file is there; raises as `look_at`."""
    status = look_at(path, error)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_folder(path: str | Path, error: type[WyrError] = InputError) -> bool:
    """True if a folder is there; raises as `look_at`."""
    status = look_at(path, error)
    return status is not None and stat.S_ISDIR(status.st_mode)


def kind_of(status: os.stat_result) -> str:
    """Return what a path is, as a message names it."""
    kinds = (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for is_kind, name in kinds if is_kind(status.st_mode)), "a device")


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as text: bytes of its name that are no UTF-8 become \\xNN."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:  # no file has such a name, but a message may
        raw = str(path).encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def reason_of(error: Exception) -> str:
    """Return why the system refused, in its own words on one line, without the path, which messages name themselves."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def read_text(path: Path, error: type[WyrError]) -> str:
    """Return the text of a UTF-8 file, without a byte order mark. Raises: `error`."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        got = reason_of(problem)
    except UnicodeDecodeError as problem:
        got = f"bytes that are not UTF-8 at place {problem.start + 1}"
    raise error(shown_path(path), f"'{got}'", "a readable text file", "Check the path.") from None


def write_whole(path: Path, content: str | bytes, error: type[WyrError] = OutputError) -> None:
    """Write a file that appears whole or not at all, even after a power cut; a device or pipe is written into.

    Raises: `error`; what was there before is then untouched.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    status = look_at(path, error)
    if status is not None and not stat.S_ISREG(status.st_mode):
        try:
            path.write_bytes(data)
        except OSError as problem:
            raise write_error(path, problem, error) from None
        return
    with whole_file(path, error) as partial:
        partial.write_bytes(data)


@contextmanager
def whole_file(path: Path, error: type[WyrError] = OutputError) -> Iterator[Path]:
    """Give the name to write a file under; it gets its own at the end of the `with`, after an error it is removed.

    Raises: `error` if it cannot be written; what was there before is then untouched.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    partial = target.with_name(f".{uuid.uuid4().hex[:12]}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise write_error(path, problem, error) from None
    finally:
        partial.unlink(missing_ok=True)


def write_error(path: Path, problem: Exception, error: type[WyrError] = OutputError) -> WyrError:
    """Return the error to raise where a file cannot be written."""
    # Arrow says "Error writing bytes to file. Detail: [errno 28] No space left on device".
    got = reason_of(problem).rpartition("] ")[2]
    return error(
        shown_path(path),
        f"'{got}' while writing",
        "a place with space and permission",
        "Mend that, or name another place.",
    )


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power cut. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
