"""wyr-batch: which part of each sequencing read made a classifier's call.

`run` is the command `wyr-batch run`; `load` gives a `Masker` for a few reads in memory. Both are imported when
first used, so that `import wyr_batch` and `wyr-batch --help` stay instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wyr_batch._version import __version__

__all__ = ["Masker", "Prediction", "RunConfig", "__version__", "load", "run"]

if TYPE_CHECKING:
    from wyr_batch.api import Masker, Prediction, load, run
    from wyr_batch.job.config import RunConfig


def __getattr__(name: str) -> Any:
    if name == "RunConfig":
        from wyr_batch.job.config import RunConfig

        return RunConfig
    if name in ("Masker", "Prediction", "load", "run"):
        from wyr_batch import api

        return getattr(api, name)
    raise AttributeError(f"module 'wyr_batch' has no attribute {name!r}")
