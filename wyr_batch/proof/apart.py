"""A function of this package called in a process of its own, so that what it loads is not loaded here.

    this process  -- sys.path, the function, its arguments; then it stays open -->  another
                  <-- a mark, messages, then a value or an error ----------------

torch, TensorRT and ONNX Runtime each bring CUDA and cuDNN libraries, of one name also where they are of different
major versions, and a process has room for one of each name: the second runtime would work with those of the first, or
crash. Only what can be pickled goes there and back. The other process ends with this one, however this one ends, and as
soon as it has answered: what such libraries do at their end may hang or crash.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, TypeVar

from wyr_batch.errors import ModelError, WyrError

logger = logging.getLogger(__name__)
T = TypeVar("T")

# What ends the run ends this process, or waits for it: signals that go to both are for that one.
_CODE = (
    "import signal, sys; "
    "[signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)]; "
    "sys.path[:] = {path!r}; from wyr_batch.proof.apart import answer; answer()"
)
_MARK = b"wyr-batch answers\n"  # what stands before it is noise of the interpreter's start
_MESSAGE, _VALUE, _ERROR = "message", "value", "error"


def apart(what: str, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns that is called in a process of its own; its messages become this process's.

    Args:
        what: is being done, for the error of a process that has come to grief.
        function: at the top level of a module.
    Raises: the WyrError that it raises; ModelError if it fails in another way, or its process does not live to answer.
    """
    answers: dict[str, Any] = {}
    path = [entry for entry in sys.path if isinstance(entry, str)]  # Python looks for modules in no others
    command = [sys.executable, "-c", _CODE.format(path=path)]
    try:
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise ModelError(what, f"'{error}' for a process of {sys.executable!r}", "a process") from None
    with started as process:
        assert process.stdin
        assert process.stdout
        try:
            with suppress(BrokenPipeError):
                pickle.dump(what, process.stdin)
                pickle.dump((function, arguments), process.stdin)
                process.stdin.flush()
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
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    out.write(b"\n" + _MARK)
    what = pickle.load(sys.stdin.buffer)
    messages = _Messages(out)
    package = logging.getLogger("wyr_batch")
    package.addHandler(messages)
    package.setLevel(logging.DEBUG)
    try:
        function, arguments = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_asker, daemon=True).start()
        found = pickle.dumps((_VALUE, function(*arguments)))
    except WyrError as error:
        found = pickle.dumps((_ERROR, error))
    except Exception as error:
        logger.debug("%s", traceback.format_exc())
        got = f"'{type(error).__name__}: {str(error)[:300]}'"
        found = pickle.dumps((_ERROR, ModelError(what, got, "no error")))
    messages.acquire()  # for good: other threads say no more
    out.write(found)
    out.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_with_asker() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


class _Messages(logging.Handler):
    def __init__(self, out: IO[bytes]) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        pickle.dump((_MESSAGE, (record.name, record.levelno, record.getMessage())), self._out)
        self._out.flush()


def _objects(stream: IO[bytes]) -> Iterator[Any]:
    """Yield what has been pickled into a stream behind the mark, as it comes; what was cut is left out."""
    for line in stream:
        if line == _MARK:
            break
    with suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield pickle.load(stream)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"one that ended with exit code {code}"
    names = {each.value: each.name for each in signal.Signals}
    return f"one that {names.get(-code, f'signal {-code}')} ended"
