"""Exceptions and the exit codes they end a command with.

The library raises, `wyr_batch.cli` catches once; a traceback is shown only with `--debug`.
"""

from __future__ import annotations


class WyrError(Exception):
    """Something a user can mend. The command ends with `exit_code` and says `<where>: got X, expected Y. <advice>`.

    Attributes:
        where: the file, tensor, read, record or option.
        got, expected: what was found there, and what should have been.
        advice: what to do about it, in whole sentences; empty where that is plain.
    """

    exit_code = 1

    def __init__(self, where: object, got: object, expected: object, advice: str = "") -> None:
        self.where, self.got, self.expected, self.advice = str(where), str(got), str(expected), advice
        super().__init__(self.where, self.got, self.expected, advice)  # what pickle makes it anew from

    def __str__(self) -> str:
        return f"{self.where}: got {self.got}, expected {self.expected}. {self.advice}".rstrip()


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

    def __init__(self, signal_name: str) -> None:
        super().__init__("the run", signal_name, "to reach its end")
        self.args = (signal_name,)

    def __str__(self) -> str:
        return f"interrupted by {self.got}"


class MissingExtraError(WyrError):
    """An optional dependency is not installed."""

    exit_code = 2

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            what, f"no package {package!r}", "it to be installed", f"Run: pip install 'wyr-batch[{extra}]'"
        )
        self.args = (what, package, extra)
