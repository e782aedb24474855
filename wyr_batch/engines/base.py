"""The contract between the pipeline and whatever runs the fused graph.

    with open_engine(bundle, ...) as engine:
        out = engine.infer(input_ids, explain_ids)

`infer` checks what goes in and what comes out; a runtime writes only `_infer`. What `infer` returns is valid until
the next call: copy what you keep.
"""

from __future__ import annotations

import abc
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from wyr_batch.bundle import Bundle
from wyr_batch.config import CPU_BATCH_TOKENS
from wyr_batch.errors import EngineError, OutOfMemory, ShapeError, WyrError
from wyr_batch.tokens import CLS_ID

_MEMORY_SIGNS = (
    "out of memory",
    "outofmemory",
    "failed to allocate",
    "cannot allocate",
    "can't allocate",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
)

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]


class EngineOutput(NamedTuple):
    """One batch's results; values at padding are 0.

    Attributes:
        mask: float32 [B, T].
        rank_masks: float32 [B, R, T].
        explained_ids: int32 [B, R], class within the rank.
        probs: float32 [B, C], plain read.
        masked_probs: float32 [B, C], masked read.
    """

    mask: Float32s
    rank_masks: Float32s
    explained_ids: Int32s
    probs: Float32s
    masked_probs: Float32s


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an exception of any runtime means that memory, the host's or the device's, did not suffice."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _MEMORY_SIGNS)


class Engine(abc.ABC):
    """One bundle loaded on one device.

    Attributes:
        pad_to: rows are best padded to a multiple of so many tokens; any length gives the same results.
        default_batch_tokens: padded tokens of a batch that fills the device.
    """

    runtime: str
    device: str
    dtype: str
    pad_to: int = 1
    default_batch_tokens: int = CPU_BATCH_TOKENS

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        """Run one batch.

        Args:
            input_ids: int32 [B, T], `<cls>` first, right-padded with 1.
            explain_ids: int32 [B, R], class within the rank, -1 the predicted one.
        Returns: EngineOutput, valid until the next call.
        Raises: ShapeError if a shape or dtype is not what the model takes; OutOfMemory, EngineError if the runtime
            fails.
        """
        rows, n_tokens = input_ids.shape
        wanted = (rows, len(self.bundle.ranks))
        if input_ids.dtype != np.int32 or explain_ids.dtype != np.int32 or explain_ids.shape != wanted:
            raise ShapeError(
                f"explain_ids: got {explain_ids.dtype} {explain_ids.shape} beside input_ids {input_ids.dtype} "
                f"{input_ids.shape}, expected int32 {wanted} beside int32 [B, T]."
            )
        if n_tokens > self.bundle.max_tokens or not (input_ids[:, 0] == CLS_ID).all():
            raise ShapeError(
                f"input_ids: got {n_tokens} tokens starting with {sorted(set(input_ids[:, 0].tolist()))[:3]}, expected "
                f"at most {self.bundle.max_tokens} starting with {CLS_ID}."
            )
        try:
            out = self._infer(input_ids, explain_ids)
        except OutOfMemory:
            self._make_room()
            raise
        except WyrError:
            raise
        except Exception as error:  # each runtime has exceptions of its own
            kind = OutOfMemory if is_out_of_memory(error) else EngineError
            if kind is OutOfMemory:
                self._make_room()
            got = f"'{str(error).strip()[:200]}' on {rows} reads of {n_tokens} tokens"
            advice = "Try another --runtime, or a smaller -b."
            raise kind(f"{self.describe()}: got {got}, expected results. {advice}") from error
        if out.mask.shape != (rows, n_tokens) or out.probs.shape != (rows, self.bundle.n_classes):
            raise ShapeError(
                f"{self.runtime}: got mask {out.mask.shape} and probs {out.probs.shape}, expected {(rows, n_tokens)} "
                f"and {(rows, self.bundle.n_classes)}. The bundle's graph is not of this layout; export it again."
            )
        return out

    @abc.abstractmethod
    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput: ...

    def _make_room(self) -> None:
        """Give back memory that a batch too large has taken, so that a smaller one finds it."""
        return

    def describe(self) -> str:
        """Return what runs, in a few words."""
        return f"{self.runtime} {self.dtype} on {self.device}"

    def close(self) -> None:
        """Give back what the engine holds."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
