"""transformers without its remarks: what is wrong is said by us, and the rest is no news to the user."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' log lines and warnings off the terminal; errors still raise."""
    from transformers.utils import logging as remarks

    before = remarks.get_verbosity()
    remarks.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        remarks.set_verbosity(before)


def reason_given(error: Exception) -> str:
    """Return what an error of transformers says, on one line that is not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
