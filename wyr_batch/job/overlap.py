"""Runs the pipeline with reading, inference and writing overlapped, on one engine or several.

Protocol:
- Threads: `read` (open, parse, tokenise, plan), one for each engine, and `write` (rows, Parquet). The calling thread
  waits for `write`, and meets signals.
- One queue of at most `QUEUE_CHUNKS` chunks for each engine leads from `read` to the engines, which take from it as
  they become free; a chunk is numbered as it is taken. `_InOrder` leads from them to `write`: it gives results by
  number, and an engine that is too far ahead of the slowest one waits. So memory does not grow with the input, and
  rows come out in input order.
- An engine with room for two batches is given chunks in parts (`ExplainStep.parts`): a chunk's first batch is started
  before the last one of the chunk before is waited for. If no chunk waits, that one is ended first.
- The end of the input is the item `None`. An exception in `read` or in an engine travels as an item in its chunk's
  place: what comes before it is written first, then it is raised in the calling thread.
- `check` is called while an engine waits, so that an interrupt is noticed when no reads come.
- Whatever ends the run, all threads have ended when `run_overlapped` returns or raises. Only a reader that waits for
  a pipe which says nothing cannot be stopped; it is given `READER_JOIN_S` and left to end with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from typing import Protocol, runtime_checkable

from wyr_batch.errors import EngineError
from wyr_batch.explain.step import Explained
from wyr_batch.job.stats import RunStats
from wyr_batch.tokens.plan import Work

QUEUE_CHUNKS = 2
READER_JOIN_S = 5.0
_POLL_S = 0.1

Works = Generator[Work, None, None]
Explain = Callable[[Work], Explained]
Parts = Generator[None, None, Explained]
Write = Callable[[Explained], None]
Check = Callable[[], None]


class _Stopped(Exception):
    """The other side of a queue has gone."""


class _Queue:
    """A bounded queue of chunks, numbered as they are taken, whose ends notice when the run is being stopped."""

    def __init__(self, n_chunks: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[Work | BaseException | None] = queue.Queue(n_chunks)
        self._stop = stop
        self._taking = threading.Lock()
        self._n_taken = 0

    @property
    def fill(self) -> int:
        """Chunks that wait."""
        return self._queue.qsize()

    def put(self, item: Work | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
        raise _Stopped

    def take(self, check: Check) -> tuple[int, Work | BaseException | None]:
        """Return the next chunk and its number; what `check` raises while none comes is the next item."""
        with self._taking:
            while not self._stop.is_set():
                item: Work | BaseException | None
                try:
                    item = self._queue.get(timeout=_POLL_S)
                except queue.Empty:
                    try:
                        check()
                        continue
                    except Exception as error:
                        item = error
                self._n_taken += 1
                return self._n_taken - 1, item
        raise _Stopped


class _InOrder:
    """Results by number; holds those that are `n_chunks` ahead at most."""

    def __init__(self, n_chunks: int, stop: threading.Event) -> None:
        self._n_chunks, self._stop = n_chunks, stop
        self._held: dict[int, Explained | BaseException | None] = {}
        self._next = 0
        self._changed = threading.Condition()

    @property
    def fill(self) -> int:
        """Results that wait."""
        return len(self._held)

    def put(self, number: int, item: Explained | BaseException | None) -> None:
        self._wait_for(lambda: number < self._next + self._n_chunks)
        with self._changed:
            self._held[number] = item
            self._changed.notify_all()

    def take(self) -> Explained | BaseException | None:
        self._wait_for(lambda: self._next in self._held)
        with self._changed:
            item = self._held.pop(self._next)
            self._next += 1
            self._changed.notify_all()
            return item

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            while not self._changed.wait_for(ready, _POLL_S):
                if self._stop.is_set():
                    raise _Stopped


def run_serial(
    works: Works, explains: Sequence[Explain], write: Write, stats: RunStats, check: Check = lambda: None
) -> None:
    """The same run in one thread, on the first engine; for debugging and as the tests' twin of `run_overlapped`."""
    with closing(_timed_reading(works, stats)) as timed:
        for work in timed:
            check()
            with stats.timed("explain"):
                done = explains[0](work)
            with stats.timed("write"):
                write(done)


def run_overlapped(
    works: Works, explains: Sequence[Explain], write: Write, stats: RunStats, check: Check = lambda: None
) -> None:
    """Run all works through the engines and hand every result to `write`, in order; see the module's protocol.

    Args:
        works: yields chunks; runs in a thread of its own, and is closed there.
        explains: one for each engine; each runs in a thread of its own.
        write: takes one chunk's results; runs in a thread of its own.
        check: raises if the run is to end.
    Raises: what `works`, an engine or `write` raised; everything before it has been written.
    """
    stop = threading.Event()
    to_explain = _Queue(QUEUE_CHUNKS * len(explains), stop)
    to_write = _InOrder(QUEUE_CHUNKS + len(explains), stop)
    failures: list[BaseException] = []

    def read() -> None:
        end: BaseException | None = None
        try:
            with closing(_timed_reading(works, stats)) as timed:
                for work in timed:
                    to_explain.put(work)
        except _Stopped:
            return
        except BaseException as error:
            end = error
        with suppress(_Stopped):
            to_explain.put(end)

    def explain_all(explain: Explain) -> None:
        begun: tuple[int, Parts] | None = None  # the chunk before, whose last batch is under way
        with suppress(_Stopped):
            while True:
                if begun and not to_explain.fill:
                    end(*begun)
                    begun = None
                number, item = to_explain.take(check)
                parts = _parts(explain, item) if isinstance(item, Work) else None
                done = None
                if parts:
                    stats.look_at({"to explain": to_explain.fill, "to write": to_write.fill})
                    done = go_on(parts)
                if begun:
                    end(*begun)
                    begun = None
                if not parts:
                    return to_write.put(number, item if isinstance(item, BaseException) else None)
                if done is None:
                    done = go_on(parts)
                if done is None:
                    begun = number, parts
                else:
                    deliver(number, done)

    def go_on(parts: Parts) -> Explained | BaseException | None:
        """Run a chunk up to its next yield; return its results, or what it raised, if there is none."""
        try:
            with stats.timed("explain"):
                next(parts)
        except StopIteration as stopped:
            done: Explained = stopped.value
            return done
        except BaseException as error:
            return error
        return None

    def end(number: int, parts: Parts) -> None:
        while (done := go_on(parts)) is None:
            continue
        deliver(number, done)

    def deliver(number: int, done: Explained | BaseException) -> None:
        to_write.put(number, done)
        if not isinstance(done, Explained):
            raise _Stopped

    def write_all() -> None:
        try:
            while isinstance(item := to_write.take(), Explained):
                with stats.timed("write"):
                    write(item)
            if item is not None:
                raise item
        except _Stopped:
            return
        except BaseException as error:
            failures.append(error)
            stop.set()

    reader = threading.Thread(target=read, name="wyr-read", daemon=True)
    writer = threading.Thread(target=write_all, name="wyr-write", daemon=True)
    engines = [
        threading.Thread(target=explain_all, args=(explain,), name=f"wyr-engine-{i}", daemon=True)
        for i, explain in enumerate(explains)
    ]
    threads = [reader, *engines, writer]
    try:
        for thread in threads:
            thread.start()
        while writer.is_alive():
            writer.join(_POLL_S)
    except RuntimeError as error:  # "can't start new thread"
        raise EngineError(
            "threads", f"'{error}'", f"{len(threads)} more", "Raise the limit of memory or of processes."
        ) from None
    finally:
        stop.set()
        for thread in (*engines, writer):
            if thread.ident:
                thread.join()
        if reader.ident:
            reader.join(READER_JOIN_S)
    if failures:
        raise failures[0]


@runtime_checkable
class _InParts(Protocol):
    def parts(self, work: Work) -> Parts: ...


def _parts(explain: Explain, work: Work) -> Parts:
    """Return the parts in which a chunk is explained: one, unless it can be done in several."""
    if isinstance(explain, _InParts):
        return (yield from explain.parts(work))
    return explain(work)


def _timed_reading(works: Works, stats: RunStats) -> Works:
    with closing(works):
        while True:
            with stats.timed("read"):
                work = next(works, None)
            if work is None:
                return
            yield work
