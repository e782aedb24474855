"""The contract between the pipeline and whatever runs the fused graph.

    with open_engine(bundle, ...) as engine:
        out = engine.infer(input_ids, explain_ids)

`infer` checks what goes in and what comes out; a runtime writes only `_infer`. It may be called from any thread: calls
on one engine run one after the other, for each takes the whole device anyway. Its two halves are

    handle = engine.start(input_ids, explain_ids)
    out = engine.finish(handle)

Where `in_flight` is more than 1, `start` only enqueues (a runtime writes `_start` and `_finish`), so that the next
batch can be started before this one is waited for. Elsewhere `start` does the work.

An engine on a GPU runs them all in one thread of its own, for the libraries of CUDA keep handles and plans by thread,
and making them takes time. What it returns is the caller's to keep. A runtime's threads do not survive a fork, so an
engine works in the process that opened it only.
"""

from __future__ import annotations

import abc
import logging
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from wyr_batch.bundle import Bundle
from wyr_batch.engines.signature import OF_SECOND_PASS, EngineOutput, Int32s, output_shapes
from wyr_batch.errors import EngineError, OutOfMemory, ShapeError, WyrError
from wyr_batch.host import give_back_freed_memory

logger = logging.getLogger(__name__)
T = TypeVar("T")

# What fills a device: two batches are in flight on a GPU. Memory depends on it.
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TORCH_GPU_BATCH_TOKENS = 8192, 49152, 98304

_MEMORY_SIGNS = (
    "out of memory",
    "outofmemory",
    "failed to allocate",
    "cannot allocate",
    "can't alloc",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "could not create a primitive",  # oneDNN, in torch and OpenVINO
    "could not create a memory",
    "resource temporarily unavailable",  # no memory for a thread
)


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an exception of any runtime means that memory, the host's or the device's, did not suffice."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _MEMORY_SIGNS)


def _words_of(error: Exception) -> str:
    """Return what a runtime says in one line, without the source lines of its own that it names first."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from "))[:200]


class Started(NamedTuple):
    """A batch of `n_rows` rows of `n_tokens` tokens that an engine has started; `handle` is the runtime's own."""

    n_rows: int
    n_tokens: int
    handle: Any


class Engine(abc.ABC):
    """One bundle loaded on one device.

    Attributes:
        pad_to: rows are best padded to a multiple of so many tokens; any length gives the same results.
        pads_equal_rows: that holds for rows of one length, too.
        default_batch_tokens: padded tokens of a batch that fills the device.
        in_flight: batches that are best started before the first of them is waited for.
        masked_calls: the masked read is classified as well; without, the second pass is left out.
        has_thread: batches run in one thread of the engine's own, whichever calls.
    """

    runtime: str
    device: str
    dtype: str
    pad_to: int = 1
    pads_equal_rows: bool = True
    in_flight: int = 1
    default_batch_tokens: int = CPU_BATCH_TOKENS
    has_thread: bool = False

    def __init__(self, bundle: Bundle, masked_calls: bool = True) -> None:
        self.bundle, self.masked_calls = bundle, masked_calls
        self._one_at_a_time = threading.RLock()
        self._process_id = os.getpid()
        self._closed = False
        self._thread: ThreadPoolExecutor | None = None

    def infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        """Run one batch. From any thread; a call waits for the one before it.

        Args:
            input_ids: int32 [B, T], special tokens as the bundle's vocabulary has them, right-padded.
            explain_ids: int32 [B, R], class within the rank, -1 the predicted one.
        Returns: EngineOutput in memory that no later call writes to.
        Raises: ShapeError if a shape or dtype is not what the model takes; OutOfMemory, EngineError if the runtime
            fails; EngineError if the engine is closed, or was opened in another process.
        """
        self.check_usable()  # before the lock, which a fork may have left taken
        with self._one_at_a_time:
            return self.finish(self.start(input_ids, explain_ids))

    def start(self, input_ids: Int32s, explain_ids: Int32s) -> Started:
        """Begin one batch; arguments and errors as of `infer`. It is finished once, or given up."""
        self.check_usable()
        rows, n_tokens = input_ids.shape
        wanted = (rows, len(self.bundle.ranks))
        if input_ids.dtype != np.int32 or explain_ids.dtype != np.int32 or explain_ids.shape != wanted:
            raise ShapeError(
                "explain_ids",
                f"{explain_ids.dtype} {explain_ids.shape} beside input_ids {input_ids.dtype} {input_ids.shape}",
                f"int32 {wanted} beside int32 [B, T]",
            )
        first = self.bundle.vocabulary.prefix[:1]
        if n_tokens > self.bundle.max_tokens or (first and not (input_ids[:, 0] == first[0]).all()):
            raise ShapeError(
                "input_ids",
                f"{n_tokens} tokens starting with {sorted(set(input_ids[:, 0].tolist()))[:3]}",
                f"at most {self.bundle.max_tokens}" + (f" starting with {first[0]}" if first else ""),
            )
        with self._one_at_a_time:
            self.check_usable()
            return Started(rows, n_tokens, self._guarded(rows, n_tokens, self._start, input_ids, explain_ids))

    def finish(self, started: Started) -> EngineOutput:
        """Wait for a batch that `start` has begun; result and errors as of `infer`."""
        self.check_usable()
        rows, n_tokens, handle = started
        out = self._guarded(rows, n_tokens, self._finish, handle)
        shapes = output_shapes(rows, n_tokens, len(self.bundle.ranks), self.bundle.n_classes)
        if not self.masked_calls:
            shapes[OF_SECOND_PASS] = (rows, 0)
        for name, shape in shapes.items():
            found = getattr(out, name).shape
            if found != shape:
                raise ShapeError(
                    f"{self.runtime}, {name}",
                    f"shape {found}",
                    shape,
                    "The bundle's graph is not of this layout; export it again.",
                )
        return out

    def check_usable(self) -> None:
        """Raise EngineError if the engine is closed, or this process was forked from the one that opened it."""
        if os.getpid() != self._process_id:
            raise EngineError(
                self.describe(),
                f"a call in process {os.getpid()}",
                f"one in process {self._process_id}, which opened it: its threads do not survive a fork",
                "Load the bundle in the new process.",
            )
        if self._closed:
            raise EngineError(self.describe(), "a batch after it was closed", "an open engine", "Load it.")

    def _guarded(self, rows: int, n_tokens: int, step: Callable[..., T], *arguments: Any) -> T:
        """Take a step with a batch of that shape, in the engine's thread if it has one."""
        failure: WyrError
        try:
            if not self.has_thread:
                return step(*arguments)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, f"wyr-{self.device}")
            return self._thread.submit(step, *arguments).result()
        except OutOfMemory as error:
            failure = error.with_traceback(None)
        except WyrError:
            raise
        except Exception as error:  # each runtime has exceptions of its own
            kind = OutOfMemory if is_out_of_memory(error) else EngineError
            got = f"'{_words_of(error)}' on {rows} reads of {n_tokens} tokens"
            advice = "Try another --runtime, or a smaller -b."
            failure = kind(self.describe(), got, "results", advice)
            # As text: a handler that keeps records would keep the failed batch's arrays with the traceback.
            logger.debug("%s\n%s", str(failure), traceback.format_exc())
        # Outside the handlers, where no traceback holds the failed batch's arrays any more.
        if isinstance(failure, OutOfMemory):
            self._make_room()
            give_back_freed_memory()
        raise failure

    @abc.abstractmethod
    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput: ...

    def _start(self, input_ids: Int32s, explain_ids: Int32s) -> Any:
        """Begin a batch; what is returned goes to `_finish`."""
        return self._infer(input_ids, explain_ids)

    def _finish(self, handle: Any) -> EngineOutput:
        out: EngineOutput = handle
        return out

    def _make_room(self) -> None:
        """Give back memory that a batch too large has taken, so that a smaller one finds it."""
        return

    def describe(self) -> str:
        """Return what runs, in a few words."""
        without = "" if self.masked_calls else " without masked calls"
        return f"{self.runtime} {self.dtype} on {self.device}{without}"

    def close(self) -> None:
        """Give back what the engine holds, after the batch that is running; more than once is once."""
        if os.getpid() != self._process_id:  # it is the parent's
            return
        with self._one_at_a_time:
            if not self._closed:
                self._closed = True
                self._close()
                if self._thread is not None:
                    self._thread.shutdown()

    def _close(self) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
