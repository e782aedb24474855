"""Exceptions and the exit codes they end a command with.

Every message reads `<file or tensor, read, record>: got X, expected Y. <what to do>`. The library raises,
`wyr_batch.cli` catches once; a traceback is shown only with `--debug`.
"""

from __future__ import annotations


class WyrError(Exception):
    """Something a user can mend; the command ends with `exit_code` and the message."""

    exit_code = 1


class UsageError(WyrError):
    """The command's words do not fit together, or ask for what is not there."""

    exit_code = 2


class InputError(WyrError):
    """Reads that cannot be opened, or are damaged from some record on."""


class OtherReadsError(InputError):
    """The reads of a resumed run are not those that were explained before."""


class OutputError(WyrError):
    """An output that cannot be written, or that exists and may not be replaced."""

    exit_code = 1


class ModelError(WyrError):
    """A checkpoint or bundle that is incomplete, damaged, unproven or of another layout."""


class ShapeError(ModelError):
    """A tensor whose shape or dtype is not what the model takes."""


class EngineError(WyrError):
    """The runtime failed on a batch."""


class OutOfMemory(EngineError):
    """The runtime had no memory for a batch; a smaller one may go."""


class Interrupted(WyrError):
    """A signal asked the run to end."""

    exit_code = 130


class MissingExtraError(WyrError):
    """An optional dependency is not installed."""

    exit_code = 2

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what}: got no package {package!r}, expected it to be installed. Run: pip install 'wyr-batch[{extra}]'"
        )
