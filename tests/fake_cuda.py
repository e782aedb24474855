"""A driver library that is stricter than the real one, with no GPU: device memory is host memory with a ledger.

It refuses addresses and sizes that are not allocated, calls from a thread where no context is current, streams that
are gone, and memory freed while work that uses it is enqueued. Work runs when its stream is waited for, not before.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wyr_batch.engines import cuda

INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, INVALID_CONTEXT, ILLEGAL_ADDRESS, INVALID_HANDLE = 1, 2, 100, 201, 700, 400
WORDS = {
    INVALID_VALUE: ("CUDA_ERROR_INVALID_VALUE", "invalid argument"),
    OUT_OF_MEMORY: ("CUDA_ERROR_OUT_OF_MEMORY", "out of memory"),
    NO_DEVICE: ("CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"),
    INVALID_CONTEXT: ("CUDA_ERROR_INVALID_CONTEXT", "invalid device context"),
    ILLEGAL_ADDRESS: ("CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    INVALID_HANDLE: ("CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"),
}


def number(value: Any) -> int:
    """Return a handle or address, given as ctypes or as a plain number."""
    return int(getattr(value, "value", value) or 0)


class FakeLibrary:
    """Stands for libcuda.so.1.

    Attributes:
        device_memory, pinned: address -> buffer, of what is allocated.
        enqueued: by stream, (addresses in use, work).
        free_bytes: what may still be allocated on the device.
        codes: what a function returns instead of working, by its name.
    """

    def __init__(self, names: tuple[str, ...] = ("Fake GPU",), free_bytes: int = 1 << 30) -> None:
        self.names, self.free_bytes = names, free_bytes
        self.device_memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.enqueued: dict[int, list[tuple[set[int], Callable[[], None]]]] = {}
        self.codes: dict[str, int] = {}
        self._current = threading.local()
        self._next_stream = 1000
        self._functions: dict[str, Any] = {}
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        if name not in self._functions:
            body = getattr(type(self), f"_{name}")

            class Function:
                argtypes: Any = None
                restype: Any = None

                def __call__(this, *arguments: Any) -> int:
                    assert this.argtypes is not None, "64-bit numbers are cut without argtypes"
                    assert len(arguments) == len(this.argtypes), name
                    with self._lock:
                        return self.codes.get(name) or body(self, *arguments) or 0

            self._functions[name] = Function()
        return self._functions[name]

    def holds(self, address: int, n_bytes: int, memory: dict[int, Any]) -> int | None:
        """Return the allocation that the bytes lie in."""
        for start, buffer in memory.items():
            if start <= address and address + n_bytes <= start + len(buffer):
                return start
        return None

    def enqueue(self, stream: int, used: set[int], work: Callable[[], None]) -> int:
        if stream not in self.enqueued:
            return INVALID_HANDLE
        self.enqueued[stream].append((used, work))
        return 0

    @property
    def clean(self) -> bool:
        """True if everything was given back."""
        return not (self.device_memory or self.pinned or self.enqueued)

    def _cuInit(self, flags: int) -> int:
        return 0

    def _cuDriverGetVersion(self, found: Any) -> int:
        found._obj.value = 13000
        return 0

    def _cuGetErrorName(self, code: int, text: Any) -> int:
        text._obj.value = WORDS[code][0].encode()
        return 0

    def _cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = WORDS[code][1].encode()
        return 0

    def _cuDeviceGetCount(self, found: Any) -> int:
        found._obj.value = len(self.names)
        return 0

    def _cuDeviceGet(self, found: Any, index: int) -> int:
        found._obj.value = index
        return 0 if index < len(self.names) else INVALID_VALUE

    def _cuDeviceGetName(self, text: Any, size: int, device: int) -> int:
        text.value = self.names[device].encode()
        return 0

    def _cuDeviceGetAttribute(self, found: Any, which: int, device: int) -> int:
        found._obj.value = {75: 9, 76: 0}[which]
        return 0

    def _cuDeviceTotalMem_v2(self, found: Any, device: int) -> int:
        found._obj.value = 1 << 34
        return 0

    def _cuDevicePrimaryCtxRetain(self, found: Any, device: int) -> int:
        found._obj.value = 500 + device
        return 0

    def _cuCtxSetCurrent(self, context: Any) -> int:
        self._current.context = number(context)
        return 0

    def _here(self) -> bool:
        return bool(getattr(self._current, "context", 0))

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = self.free_bytes, 1 << 34
        return 0 if self._here() else INVALID_CONTEXT

    def _allocate(self, found: Any, n_bytes: int, memory: dict[int, Any]) -> int:
        if not self._here():
            return INVALID_CONTEXT
        if not n_bytes:
            return INVALID_VALUE
        buffer = (ctypes.c_byte * n_bytes)()
        ctypes.memset(buffer, 0x7F, n_bytes)
        memory[ctypes.addressof(buffer)] = buffer
        found._obj.value = ctypes.addressof(buffer)
        return 0

    def _cuMemAlloc_v2(self, found: Any, n_bytes: int) -> int:
        if n_bytes > self.free_bytes:
            return OUT_OF_MEMORY
        code = self._allocate(found, n_bytes, self.device_memory)
        self.free_bytes -= 0 if code else n_bytes
        return code

    def _release(self, address: Any, memory: dict[int, Any]) -> int:
        start = number(address)
        if start not in memory:
            return INVALID_VALUE
        assert not any(start in used for work in self.enqueued.values() for used, _ in work), "freed while in use"
        self.free_bytes += len(memory[start]) if memory is self.device_memory else 0
        del memory[start]
        return 0

    def _cuMemFree_v2(self, address: Any) -> int:
        return self._release(address, self.device_memory)

    def _cuMemHostAlloc(self, found: Any, n_bytes: int, flags: int) -> int:
        return self._allocate(found, n_bytes, self.pinned)

    def _cuMemFreeHost(self, address: Any) -> int:
        return self._release(address, self.pinned)

    def _copy(self, host: Any, device: Any, n_bytes: int, stream: Any, to_device: bool) -> int:
        there, here = number(device), number(host)
        on_device, on_host = self.holds(there, n_bytes, self.device_memory), self.holds(here, n_bytes, self.pinned)
        if on_device is None or on_host is None:
            return ILLEGAL_ADDRESS
        ends = (there, here) if to_device else (here, there)
        return self.enqueue(number(stream), {on_device, on_host}, lambda: void(ctypes.memmove(*ends, n_bytes)))

    def _cuMemcpyHtoDAsync_v2(self, device: Any, host: Any, n_bytes: int, stream: Any) -> int:
        return self._copy(host, device, n_bytes, stream, True)

    def _cuMemcpyDtoHAsync_v2(self, host: Any, device: Any, n_bytes: int, stream: Any) -> int:
        return self._copy(host, device, n_bytes, stream, False)

    def _cuStreamCreate(self, found: Any, flags: int) -> int:
        self._next_stream += 1
        found._obj.value = self._next_stream
        self.enqueued[self._next_stream] = []
        return 0 if self._here() else INVALID_CONTEXT

    def _cuStreamSynchronize(self, stream: Any) -> int:
        if number(stream) not in self.enqueued:
            return INVALID_HANDLE
        work = self.enqueued[number(stream)]
        for _, do in work:
            do()
        work.clear()
        return 0 if self._here() else INVALID_CONTEXT

    def _cuStreamDestroy_v2(self, stream: Any) -> int:
        return INVALID_HANDLE if self.enqueued.pop(number(stream), None) is None else 0


def void(_: object) -> None:
    """Throw a result away."""


@contextmanager
def installed(library: FakeLibrary) -> Iterator[FakeLibrary]:
    """Let the package find this library for as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "load_library", lambda name: library)
        cuda.driver.cache_clear()
        cuda.cuda_device.cache_clear()
        try:
            yield library
        finally:
            cuda.driver.cache_clear()
            cuda.cuda_device.cache_clear()
