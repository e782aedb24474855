"""What a bundle says of its tokens: which ids there are, and the special ones that stand around every window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.checks.fields import Fields

LARGEST = 10**7  # ids of any vocabulary
KMER_NAME = "nucleotide-transformer-v2-6mer"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token ids, and what stands around them.

    Attributes:
        size: ids are 0 to size - 1.
        prefix, suffix: special tokens before and after the tokens of every window.
        between: special tokens between the two texts of a pair; None: the model takes no pairs.
        pad_id: of padding, which is on the right.
        drawn: first and last id, half-open, of which random tokens are drawn to prove or time a model.
        file: the tokenizer.json in the bundle; '' for 6-mers, which need none.
    """

    size: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    between: tuple[int, ...] | None
    pad_id: int
    drawn: tuple[int, int]
    file: str = ""

    @property
    def n_special(self) -> int:
        """Special tokens of a window."""
        return len(self.prefix) + len(self.suffix)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Every special token but padding, each once."""
        return tuple(dict.fromkeys((*self.prefix, *self.suffix, *(self.between or ()))))

    def random_ids(self, rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
        """Return random tokens, none of them special, int32 of that shape."""
        ids = rng.integers(*self.drawn, shape)
        ids[np.isin(ids, (*self.special_ids, self.pad_id))] = self._ordinary
        return ids.astype(np.int32)

    def random_batch(self, n_rows: int, n_tokens: int) -> npt.NDArray[np.int32]:
        """Return a seeded batch of rows without padding, input_ids int32 [n_rows, n_tokens]; n_tokens > n_special."""
        ids = self.random_ids(np.random.default_rng(0), (n_rows, n_tokens))
        ids[:, : len(self.prefix)] = self.prefix
        ids[:, n_tokens - len(self.suffix) :] = self.suffix
        return ids

    @property
    def _ordinary(self) -> int:
        taken = {*self.special_ids, self.pad_id}
        return next(i for i in range(self.drawn[0], self.drawn[1]) if i not in taken)

    def padded(self, rows: Sequence[npt.NDArray[Any]], n_columns: int = 0) -> npt.NDArray[np.int32]:
        """Return input_ids int32 [B, T] of rows of tokens, special tokens and padding added; T at least `n_columns`."""
        longest = self.n_special + max(map(len, rows))
        batch = np.full((len(rows), max(longest, n_columns)), self.pad_id, np.int32)
        before = len(self.prefix)
        batch[:, :before] = self.prefix
        for row, tokens in zip(batch, rows, strict=True):
            row[before : before + len(tokens)] = tokens
            row[before + len(tokens) : self.n_special + len(tokens)] = self.suffix
        return batch

    def to_json(self) -> dict[str, Any]:
        """Return the `tokenizer` object of bundle.json."""
        if not self.file:
            return {"name": KMER_NAME, "vocab_size": self.size, "upper_case": True, "u_is_t": True}
        between = None if self.between is None else list(self.between)
        fields = {"prefix": list(self.prefix), "suffix": list(self.suffix), "between": between, "pad_id": self.pad_id}
        return {"file": self.file, "vocab_size": self.size, **fields}


SIX_MERS = Vocabulary(4107, prefix=(3,), suffix=(), between=None, pad_id=1, drawn=(6, 4102))


def vocabulary_from_json(fields: Fields) -> Vocabulary:
    """Return the vocabulary that a `tokenizer` object describes. Raises: the error of the fields."""
    if "file" not in fields.content:
        return SIX_MERS
    size = fields.whole("vocab_size", least=2, most=LARGEST)
    between = None if fields.content.get("between") is None else _ids(fields, "between", size)
    return Vocabulary(
        size,
        _ids(fields, "prefix", size),
        _ids(fields, "suffix", size),
        between,
        fields.whole("pad_id", least=0, most=size - 1),
        (0, size),
        fields.text("file"),
    )


def _ids(fields: Fields, name: str, size: int) -> tuple[int, ...]:
    ids = fields.content.get(name)
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < size for i in ids):
        raise fields.wrong(name, f"a list of token ids from 0 to {size - 1}")
    return tuple(ids)
