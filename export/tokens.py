"""The tokens of a classifier that is exported: its tokenizer, and reads or texts to prove the bundle on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy.typing as npt

from wyr_batch.checks.files import shown_path, write_whole
from wyr_batch.errors import InputError
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.proof.batches import N_READS, READS, chunk_tokens
from wyr_batch.reads.open import open_reads
from wyr_batch.texts.open import opener
from wyr_batch.tokens.kmers import KmerTokenizer
from wyr_batch.tokens.tokens import Tokenizer

Rows = Sequence[npt.NDArray[Any]]


def write_tokenizer(explanandum: Explanandum, folder: Path) -> Tokenizer:
    """Write the tokenizer of a classifier into a bundle's folder, unless it needs no file, and open it."""
    if not isinstance(explanandum, Tokenised):
        return KmerTokenizer()
    from wyr_batch.tokens.subwords import SubwordTokenizer  # needs an extra

    path = folder / explanandum.vocabulary.file
    write_whole(path, explanandum.tokenizer.json)
    return SubwordTokenizer(path, explanandum.vocabulary, explanandum.input)


def proof_tokens(path: Path, explanandum: Explanandum, tokenizer: Tokenizer) -> Rows | None:
    """Return the tokens of a file's first reads or texts, to prove a bundle on.

    Args:
        path: the package's reads (`READS`) are none for a classifier of texts or proteins: it is given random tokens.
    Raises: InputError if there is not one token.
    """
    if path == READS and explanandum.input != "reads":
        return None
    with (opener(explanandum.input) or open_reads)(str(path), chunk_reads=N_READS) as source:
        rows = [row for chunk in islice(source, 1) for row in chunk_tokens(tokenizer.tokenise(chunk))]
    if not rows:
        raise InputError(f"--verify {shown_path(path)}", "nothing with a token", "at least one read or text")
    return rows
