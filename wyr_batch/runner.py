"""Runs the pipeline with reading, inference and writing overlapped.

Protocol:
- Three threads: `read` (open, parse, tokenise, plan), the calling thread (the engine) and `write` (rows, Parquet).
- They are joined by two queues of at most `QUEUE_CHUNKS` chunks each, so memory does not grow with the input.
- Items travel in input order through both queues; nothing is reordered, so rows come out in input order.
- The end of the input is the item `None`. An exception in `read` travels as an item down the same queue: what was
  read before it is explained and written first, then it is raised in the calling thread.
- An exception in `write` is kept; the calling thread meets it at its next put, stops the reader and raises it.
- Whatever ends the run, both threads have ended when `run_overlapped` returns or raises. Only a reader that waits for
  a pipe which says nothing cannot be stopped; it is given `READER_JOIN_S` and left to end with the process.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from wyr_batch.pipeline import Explained, Work
from wyr_batch.stats import RunStats

QUEUE_CHUNKS = 2
READER_JOIN_S = 5.0
_POLL_S = 0.1

T = TypeVar("T")
Works = Generator[Work, None, None]


class _Stopped(Exception):
    """The other side of a queue has gone."""


class _Channel(Generic[T]):
    """A bounded queue whose ends notice when the run is being stopped."""

    def __init__(self, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue(QUEUE_CHUNKS)
        self._stop = stop

    def put(self, item: T | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
        raise _Stopped

    def __iter__(self) -> Iterator[T]:
        """Yield items until the end; raise an exception that came down the queue."""
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
        raise _Stopped


def run_serial(
    works: Works, explain: Callable[[Work], Explained], write: Callable[[Explained], None], stats: RunStats
) -> None:
    """The same run in one thread; for debugging and as the tests' twin of `run_overlapped`."""
    with closing(_timed(works, stats, "read")) as timed:
        for work in timed:
            start = time.perf_counter()
            done = explain(work)
            stats.stage_s["explain"] += time.perf_counter() - start
            start = time.perf_counter()
            write(done)
            stats.stage_s["write"] += time.perf_counter() - start


def run_overlapped(
    works: Works, explain: Callable[[Work], Explained], write: Callable[[Explained], None], stats: RunStats
) -> None:
    """Run all works through the engine and hand every result to `write`, in order; see the module's protocol.

    Args:
        works: yields chunks; runs in a thread of its own, and is closed there.
        write: takes one chunk's results; runs in a thread of its own.
    Raises: what `works`, `explain` or `write` raised; everything before it has been written.
    """
    stop = threading.Event()
    to_explain: _Channel[Work] = _Channel(stop)
    to_write: _Channel[Explained] = _Channel(stop)
    write_errors: list[BaseException] = []

    def read() -> None:
        try:
            try:
                with closing(_timed(works, stats, "read")) as timed:
                    for work in timed:
                        to_explain.put(work)
                to_explain.put(None)
            except _Stopped:
                raise
            except BaseException as error:
                to_explain.put(error)
        except _Stopped:
            return

    def write_all() -> None:
        try:
            for done in to_write:
                start = time.perf_counter()
                write(done)
                stats.stage_s["write"] += time.perf_counter() - start
        except _Stopped:
            return
        except BaseException as error:
            write_errors.append(error)
            stop.set()

    reader = threading.Thread(target=read, name="wyr-read", daemon=True)
    writer = threading.Thread(target=write_all, name="wyr-write", daemon=True)
    reader.start()
    writer.start()
    try:
        failure: BaseException | None = None
        try:
            for work in to_explain:
                start = time.perf_counter()
                done = explain(work)
                stats.stage_s["explain"] += time.perf_counter() - start
                to_write.put(done)
        except _Stopped:
            pass
        except Exception as error:
            failure = error
        if not stop.is_set():
            to_write.put(None)
            writer.join()
        if write_errors:
            raise write_errors[0]
        if failure is not None:
            raise failure
    finally:
        stop.set()
        reader.join(READER_JOIN_S)
        writer.join()


def _timed(works: Works, stats: RunStats, stage: str) -> Works:
    with closing(works):
        while True:
            start = time.perf_counter()
            work = next(works, None)
            stats.stage_s[stage] += time.perf_counter() - start
            if work is None:
                return
            yield work
