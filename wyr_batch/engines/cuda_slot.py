"""Memory for one batch in flight on a GPU: a stream, pinned and device buffers that grow on demand, scratch."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import byref, c_uint64, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.engines.cuda import NON_BLOCKING, CudaDevice, Driver


class _DeviceBuffer:
    """Device memory that grows."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.address, self.n_bytes = 0, 0

    def reserve(self, n_bytes: int) -> int:
        """Return the address of at least so many bytes; what was there before is gone if it had to grow."""
        if n_bytes > self.n_bytes:
            self.free()
            address = c_uint64()
            self._driver.call("cuMemAlloc_v2", byref(address), n_bytes)
            self.address, self.n_bytes = address.value, n_bytes
        return self.address

    def free(self) -> None:
        address, self.address, self.n_bytes = self.address, 0, 0
        if address:
            self._driver.call("cuMemFree_v2", address)


class _PinnedBuffer:
    """Host memory that the GPU copies from and to by itself; grows."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.address, self.n_bytes = 0, 0

    def reserve(self, n_bytes: int) -> int:
        if n_bytes > self.n_bytes:
            self.free()
            address = c_void_p()
            self._driver.call("cuMemHostAlloc", byref(address), n_bytes, 0)
            self.address, self.n_bytes = address.value or 0, n_bytes
        return self.address

    def view(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the start of the buffer as an array, good until the buffer grows or is freed."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        raw = (ctypes.c_byte * n_bytes).from_address(self.address)
        return np.frombuffer(memoryview(raw), dtype).reshape(shape)

    def free(self) -> None:
        address, self.address, self.n_bytes = self.address, 0, 0
        if address:
            self._driver.call("cuMemFreeHost", address)


class Slot:
    """One batch in flight on one GPU: a stream, and by tensor name a pinned and a device buffer that grow on demand.

    A batch: `send` every input, `expect` every output, enqueue the work on `stream`, `receive`. A slot is used by one
    thread at a time; several slots of a device run side by side.
    """

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self._driver = device.driver
        self._pinned: dict[str, _PinnedBuffer] = {}
        self._on_device: dict[str, _DeviceBuffer] = {}
        self._expected: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {}
        self._scratch = _DeviceBuffer(self._driver)
        device.use()
        self._stream = c_void_p()
        self._driver.call("cuStreamCreate", byref(self._stream), NON_BLOCKING)

    @property
    def stream(self) -> int:
        """The stream's handle, as runtimes take it."""
        return self._stream.value or 0

    def send(self, name: str, values: npt.NDArray[Any]) -> int:
        """Start copying an array to the GPU; returns its address there."""
        pinned, on_device = self._pair(name)
        pinned.reserve(values.nbytes)
        address = on_device.reserve(values.nbytes)
        pinned.view(values.shape, values.dtype)[...] = values
        self._driver.call("cuMemcpyHtoDAsync_v2", address, pinned.address, values.nbytes, self._stream)
        return address

    def expect(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> int:
        """Make room for an output that `receive` is to bring; returns its address on the GPU."""
        self._expected[name] = (tuple(shape), dtype)
        return self._pair(name)[1].reserve(math.prod(shape) * np.dtype(dtype).itemsize)

    def scratch(self, n_bytes: int) -> int:
        """Return the address of device memory for the runtime's own use."""
        return self._scratch.reserve(max(1, n_bytes))

    def wait(self) -> None:
        """Wait until all that was enqueued is done."""
        self._driver.call("cuStreamSynchronize", self._stream)

    def receive(self) -> dict[str, npt.NDArray[Any]]:
        """Bring all expected outputs, wait for the stream, and return copies by name, which stay good."""
        for name, (shape, dtype) in self._expected.items():
            pinned, on_device = self._pair(name)
            n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            pinned.reserve(n_bytes)
            self._driver.call("cuMemcpyDtoHAsync_v2", pinned.address, on_device.address, n_bytes, self._stream)
        self.wait()
        found = {name: self._pinned[name].view(*wanted).copy() for name, wanted in self._expected.items()}
        self._expected.clear()
        return found

    def make_room(self) -> None:
        """Wait, and give all buffers back; the next batch takes what it needs."""
        self.device.use()
        self.wait()
        self._expected.clear()
        for pinned in self._pinned.values():
            pinned.free()
        for on_device in (*self._on_device.values(), self._scratch):
            on_device.free()

    def close(self) -> None:
        """Wait, and give everything back; harmless when done twice."""
        if not self._stream:
            return
        self.make_room()
        self._driver.call("cuStreamDestroy_v2", self._stream)
        self._stream = c_void_p()

    def _pair(self, name: str) -> tuple[_PinnedBuffer, _DeviceBuffer]:
        if name not in self._pinned:
            self._pinned[name], self._on_device[name] = _PinnedBuffer(self._driver), _DeviceBuffer(self._driver)
        return self._pinned[name], self._on_device[name]
