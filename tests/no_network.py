"""Kill a process that opens an internet socket, in Python or in any library: a seccomp filter of Linux.

Unix sockets are let through. Source: seccomp(2); the numbers are those of x86-64.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys

_SOCKET_CALL, _AF_INET, _AF_INET6 = 41, 2, 10
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def can_forbid() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def forbid_internet() -> None:
    """From here on, a socket of AF_INET or AF_INET6 ends this process, and its children, with SIGSYS."""
    steps = [
        (_LOAD, 0, 0, 0),  # the number of the call
        (_EQUAL, 0, 4, _SOCKET_CALL),
        (_LOAD, 0, 0, 16),  # its first argument
        (_EQUAL, 1, 0, _AF_INET),
        (_EQUAL, 0, 1, _AF_INET6),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")
