"""A function of this package called in a process of its own, so that what it loads is not loaded here.

    this process  -- sys.path, the function, its arguments -->  another
                  <-- messages, then a value or an error -----

torch, TensorRT and ONNX Runtime each bring CUDA and cuDNN libraries, of one name also where they are of different
major versions, and a process has room for one of each name: the second runtime would work with those of the first, or
crash. Only what can be pickled goes there and back.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, TypeVar

from wyr_batch.errors import ModelError, WyrError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_CODE = "import sys; sys.path[:] = {path!r}; from wyr_batch.proof.apart import answer; answer()"
_MESSAGE, _VALUE, _ERROR = "message", "value", "error"


def apart(what: str, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns that is called in a process of its own; its messages become this process's.

    Args:
        what: is being done, for the error of a process that has come to grief.
        function: at the top level of a module.
    Raises: the WyrError that it raises; ModelError if it fails in another way, or its process does not live to answer.
    """
    answers: dict[str, Any] = {}
    command = [sys.executable, "-c", _CODE.format(path=sys.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            with suppress(BrokenPipeError), process.stdin as stdin:
                pickle.dump((function, arguments), stdin)
            for kind, content in _objects(process.stdout):
                if kind == _MESSAGE:
                    name, level, text = content
                    logging.getLogger(name).log(level, "%s", text)
                else:
                    answers[kind] = content
                    break
        except BaseException:
            process.kill()
            raise
    if _ERROR in answers:
        raise answers[_ERROR]
    if _VALUE not in answers:
        raise ModelError(what, _how_it_ended(process.returncode), "a process that goes to its end")
    value: T = answers[_VALUE]
    return value


def answer() -> None:
    """Do what `apart` asks for: in the process that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what asks ends this process, or waits for it
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    package = logging.getLogger("wyr_batch")
    package.addHandler(_Messages(out))
    package.setLevel(logging.DEBUG)
    try:
        function, arguments = pickle.load(sys.stdin.buffer)
        found = _VALUE, function(*arguments)
    except WyrError as error:
        found = _ERROR, error
    except Exception as error:
        logger.debug("%s", traceback.format_exc())
        what = f"{function.__name__}{arguments!r}"[:100]
        found = _ERROR, ModelError(what, f"'{type(error).__name__}: {str(error)[:300]}'", "no error")
    with out:
        pickle.dump(found, out)


class _Messages(logging.Handler):
    def __init__(self, out: IO[bytes]) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        pickle.dump((_MESSAGE, (record.name, record.levelno, record.getMessage())), self._out)
        self._out.flush()


def _objects(stream: IO[bytes]) -> Iterator[Any]:
    """Yield what has been pickled into a stream, as it comes; what was cut is left out."""
    with suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield pickle.load(stream)


def _how_it_ended(code: int) -> str:
    return f"one that {signal.Signals(-code).name} ended" if code < 0 else f"one that ended with exit code {code}"
