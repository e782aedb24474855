"""Memory that a chunk has freed is kept for the next one, instead of going to the system and coming back page by page.

Each chunk's arrays are a few megabytes; glibc maps such pieces anew each time, and the first touch of every page costs
the host side CPU time. Not handled: other C libraries, which are left alone. Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_PIECE_BYTES, _KEPT_BYTES = 32 << 20, 192 << 20
_DEFAULT_BYTES = 128 << 10  # of both, mallopt(3)


def keep_freed_memory() -> None:
    """Tell glibc to keep pieces of up to 32 MB, and 192 MB of what is free, for this process."""
    _set_thresholds(_LARGEST_PIECE_BYTES, _KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Undo `keep_freed_memory` and give the system all that is free now: memory has run out."""
    _set_thresholds(_DEFAULT_BYTES, _DEFAULT_BYTES)
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(mmap_bytes: int, trim_bytes: int) -> None:
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_bytes)
