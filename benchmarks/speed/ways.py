"""The ways through a model that `run` is compared with: the bare engine on ready batches, and plain eager code."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import CPU_BATCH_TOKENS, Engine
from wyr_batch.engines.signature import Int32s
from wyr_batch.job.config import RunConfig
from wyr_batch.reads.open import open_reads
from wyr_batch.tokens.batches import pad_batch
from wyr_batch.tokens.kmers import PAD_ID, vocabulary
from wyr_batch.tokens.plan import Planner

Mask = npt.NDArray[np.float32]


def esm_tokenizer() -> Any:
    """Return transformers' EsmTokenizer over the published vocabulary."""
    from transformers import EsmTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(vocabulary()))
        return EsmTokenizer(str(path), eos_token=None)  # as published


def texts_in(source: Path) -> list[str]:
    """Return the sequences of a file of reads."""
    with open_reads(source) as reads:
        return [
            chunk.bases[start:end].tobytes().decode()
            for chunk in reads
            for start, end in pairwise(chunk.offsets.tolist())
        ]


def graph_alone(source: Path, bundle: Bundle) -> Callable[[Engine], None]:
    """Lay out a file's batches as `run` does; returns what feeds them to an engine and throws the results away."""
    config = RunConfig((str(source),), source.with_suffix(".parquet"))
    planner = Planner(*config.window_tokens(bundle), CPU_BATCH_TOKENS)
    with open_reads(source) as reads:
        works = [planner.plan(chunk) for chunk in reads]
    batches = [pad_batch(work.tokens.ids, work.windows, rows) for work in works for rows in work.batches]

    def feed(engine: Engine) -> None:
        for ids in batches:
            engine.infer(ids, np.full((len(ids), len(bundle.ranks)), -1, np.int32))

    return feed


def eager(texts: list[str], tokenizer: Any, engine: Engine, n_rows: int) -> tuple[list[Mask], Int32s]:
    """Explain reads the plain way: batches in file order, EsmTokenizer, padded, the masks collected in a list.

    Args:
        tokenizer: what `esm_tokenizer` returns.
        n_rows: reads of a batch.
    Returns: a mask a read, float32 [its tokens], `<cls>` not counted; and the called classes, int32 [n, R].
    """
    masks, calls = [], []
    for at in range(0, len(texts), n_rows):
        ids = tokenizer(texts[at : at + n_rows], padding=True, return_tensors="np")["input_ids"].astype(np.int32)
        out = engine.infer(ids, np.full((len(ids), len(engine.bundle.ranks)), -1, np.int32))
        masks += [mask[1 : int((row != PAD_ID).sum())].copy() for row, mask in zip(ids, out.mask, strict=True)]
        calls.append(out.explained_ids.copy())
    return masks, np.concatenate(calls)
