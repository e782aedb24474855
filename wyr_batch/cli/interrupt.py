"""SIGINT and SIGTERM end a run gently: what is explained is written first. A second one ends it at once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wyr_batch.errors import Interrupted

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], None]]:
    """Catch the signals inside the `with`; gives a function that raises Interrupted once one has come.

    For the main thread only, as signals are.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in SIGNALS:
            signal.signal(each, signal.default_int_handler)
        logger.info("%s: finishing what is explained; once more ends at once", signal.Signals(number).name)

    def check() -> None:
        if came:
            raise Interrupted(signal.Signals(came[0]).name)

    before = {number: signal.signal(number, remember) for number in SIGNALS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def end_on_signal() -> Iterator[None]:
    """Let SIGTERM end what is inside the `with` as Ctrl-C does: at once, with nothing half done left behind.

    For the main thread only, as signals are.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
