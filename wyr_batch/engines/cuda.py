"""NVIDIA GPUs through the driver alone: which there are, streams, pinned and device buffers.

The driver library, `libcuda.so.1`, comes with every driver, keeps its interface between CUDA versions, and needs
neither torch nor a CUDA toolkit: what TensorRT and ONNX Runtime leave to their caller is done with it. Both work in
the device's primary context, and so does this module.

    Slot: one batch in flight
      stream -----------------------------------------------------------------> time
      input_ids   [pinned] --copy--> [device] \\                / [device] --copy--> [pinned]  mask, probs, ...
      explain_ids [pinned] --copy--> [device] -> the runtime ->

Every return code is checked. Not handled: several processes on one GPU, memory shared between GPUs.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

from wyr_batch.errors import UsageError

LIBRARY = "libcuda.so.1"
NON_BLOCKING = 1  # a stream that does not wait for the default one
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256

# Arguments of what is called, as cuda.h declares them; all return CUresult. Device addresses are 64-bit numbers.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
}


class CudaError(Exception):
    """The driver refused a call; the message holds the call and the driver's name and words for it."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the process sees it: CUDA_VISIBLE_DEVICES has been applied by the driver."""

    index: int
    name: str
    capability: tuple[int, int]
    memory_bytes: int
    driver: str

    @property
    def device(self) -> str:
        """The name that --device takes."""
        return f"cuda:{self.index}"


class Driver:
    """The driver library, loaded and initialised."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver. Raises: CudaError unless it returns 0."""
        code = getattr(self._library, name)(*arguments)
        if code:
            words = []
            for describe in ("cuGetErrorName", "cuGetErrorString"):
                text = c_char_p()
                unknown = getattr(self._library, describe)(code, byref(text))
                words.append(f"error {code}" if unknown or not text.value else text.value.decode())
            raise CudaError(f"{name}: {words[0]} ({words[1]})")

    def number(self, name: str, *arguments: Any) -> int:
        """Return what a function writes through its first argument, an int."""
        found = c_int()
        self.call(name, byref(found), *arguments)
        return found.value

    def gpus(self) -> list[Gpu]:
        """Return all GPUs, in the driver's order."""
        version = self.number("cuDriverGetVersion")
        found = []
        for index in range(self.number("cuDeviceGetCount")):
            handle = self.number("cuDeviceGet", index)
            name = ctypes.create_string_buffer(_NAME_BYTES)
            self.call("cuDeviceGetName", name, _NAME_BYTES, handle)
            memory = c_size_t()
            self.call("cuDeviceTotalMem_v2", byref(memory), handle)
            major, minor = (
                self.number("cuDeviceGetAttribute", which, handle) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
            )
            driver = f"CUDA {version // 1000}.{version % 1000 // 10}"
            found.append(Gpu(index, name.value.decode(), (major, minor), memory.value, driver))
        return found


def load_library(name: str) -> Any:
    """Open a shared library. Raises: OSError."""
    return ctypes.CDLL(name)


@cache
def driver() -> Driver:
    """Load the driver once. Raises: OSError if there is none; CudaError if it finds no GPU it can use."""
    return Driver(load_library(LIBRARY))


def find_gpus() -> tuple[list[Gpu], str]:
    """Return the GPUs of this process, and if there are none, why."""
    try:
        gpus = driver().gpus()
    except OSError:
        return [], f"no NVIDIA driver ({LIBRARY} is not there)"
    except (CudaError, AttributeError) as error:  # AttributeError: a driver older than a function used here
        return [], f"the NVIDIA driver says {error}"
    return gpus, "" if gpus else "the NVIDIA driver shows no GPU; is CUDA_VISIBLE_DEVICES empty?"


def chosen_gpus(device: str) -> list[Gpu]:
    """Return the GPUs that --device names: 'cuda' (the first), 'cuda:N' or 'cuda:all'.

    Raises: UsageError if the word is another one, or the GPU is not there.
    """
    word, _, which = device.partition(":")
    if word != "cuda" or not (which in ("", "all") or which.isdecimal()) or device.endswith(":"):
        raise UsageError("--device", device, "auto, cpu, cuda, cuda:N or cuda:all")
    gpus = gpus_for("--device", device)
    if which == "all":
        return gpus
    index = int(which or 0)
    if index >= len(gpus):
        raise UsageError(
            "--device",
            device,
            f"cuda:0 to cuda:{len(gpus) - 1}, the GPUs this process sees",
            "Check CUDA_VISIBLE_DEVICES.",
        )
    return [gpus[index]]


def gpus_for(flag: str, got: str, instead: str = "use -x cpu") -> list[Gpu]:
    """Return all GPUs. Raises: UsageError naming the option, what it got and what to do instead, if there is none."""
    gpus, why = find_gpus()
    if not gpus:
        raise UsageError(
            flag,
            got,
            f"an NVIDIA GPU and found none: {why}",
            f"Install the NVIDIA driver, run where a GPU is, or {instead}.",
        )
    return gpus


class CudaDevice:
    """One GPU in use: its primary context, held as long as the process lives. Get it from `cuda_device`."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.driver = gpu, driver()
        self._context = c_void_p()
        handle = self.driver.number("cuDeviceGet", gpu.index)
        self.driver.call("cuDevicePrimaryCtxRetain", byref(self._context), handle)

    def use(self) -> None:
        """Make the device current in the calling thread; every thread that works with it says so."""
        self.driver.call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        self.use()
        free, total = c_size_t(), c_size_t()
        self.driver.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value


@cache
def cuda_device(gpu: Gpu) -> CudaDevice:
    """Return the GPU in use, the same one each time. Raises: CudaError."""
    return CudaDevice(gpu)
