"""How labelled sequences become tokens: 6-mers of reads, or the tokens of a classifier's own tokenizer.

    reads      6-mers                    a window is of bases, pieces are cut anywhere, either strand
    reads      a tokenizer.json          a window is of tokens, pieces are cut anywhere, either strand
    proteins   a tokenizer.json          a window is of tokens, pieces are cut anywhere
    text       a tokenizer.json          a window is of tokens, pieces are cut between words, never inside a character

How many tokens a piece will have is known only once it is cut, so it is cut where its share of the whole would end;
what is beyond the window then is left out.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.errors import UsageError
from wyr_batch.reads.chunk import BETWEEN_PAIR, ReadChunk
from wyr_batch.texts.open import READS, TEXTS
from wyr_batch.tokens.kmers import KmerTokenizer
from wyr_batch.tokens.tokens import NO_WORD, Tokenizer, Tokens
from wyr_batch.tokens.words import code_points, is_joining, of_letters
from wyr_batch.vocabulary import SIX_MERS, Vocabulary

if TYPE_CHECKING:
    from wyr_batch.models.explanandum import Explanandum

NOWHERE = -1  # where a special token or padding starts and ends

Int64s = npt.NDArray[np.int64]
Uint8s = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Padded:
    """Tokens of some rows, special ones around them, int64 [B, T] each, `NOWHERE` (`NO_WORD`) at what is none's.

    Attributes:
        ids: of tokens.
        starts, ends: span of each in its row: bases, residues, or code points.
        words: which word of its row each is of; None: there are no words.
    """

    ids: Int64s
    starts: Int64s
    ends: Int64s
    words: Int64s | None


@dataclass(frozen=True)
class Coding:
    """A tokenizer, the special tokens around what it makes, and the longest row.

    Attributes:
        kind: what is tokenised, `READS`, `PROTEINS` or `TEXTS`.
        window_tokens: of the longest row, special ones not counted; 0: there is no limit but that of bases.
    """

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    kind: str = READS
    window_tokens: int = 0

    @property
    def is_kmers(self) -> bool:
        """A window is of bases, each token of six."""
        return not self.vocabulary.file

    @property
    def has_strands(self) -> bool:
        """A sequence may be read from either side."""
        return self.kind == READS

    @property
    def joint(self) -> bytes:
        """What stands between two pieces that are joined."""
        return b" " if self.kind == TEXTS else b""

    def tokenise(self, bases: Uint8s, offsets: Int64s, second: Int64s | None = None) -> Tokens:
        """Return the tokens of some rows.

        Args:
            bases: uint8, letters of all rows, of texts UTF-8; offsets: int64 [n + 1], in bytes.
            second: int64 [n], byte where the second text of a pair begins, -1 where there is none.
        """
        n = len(offsets) - 1
        letters = letters_of(bases, offsets) if self.kind == TEXTS else None
        ids, mates = pa.array([""] * n, pa.string()), np.zeros(n, np.int8)
        chunk = ReadChunk(ids, mates, bases, offsets, "<labelled>", 1, letters=letters, second=second)
        return self.tokenizer.tokenise(chunk)

    def padded(self, bases: Uint8s, offsets: Int64s, second: Int64s | None = None) -> Padded:
        """Return the tokens of some rows, as `tokenise` takes them, each up to the window, side by side."""
        tokens = self.tokenise(bases, offsets, second)
        counts = tokens.counts
        place = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], counts)
        kept = np.ones(len(place), bool)
        if self.window_tokens and len(counts) and int(counts.max()) > self.window_tokens:
            kept = place < self.window_tokens
            counts = np.minimum(counts, self.window_tokens)
        place = place[kept] + len(self.vocabulary.prefix)
        row_of = np.repeat(np.arange(len(counts)), counts)
        shape = len(counts), int(counts.max(initial=0)) + self.vocabulary.n_special

        def laid_out(values: npt.NDArray[np.integer], empty: int) -> Int64s:
            out = np.full(shape, empty, np.int64)
            out[row_of, place] = values[kept]
            return out

        ids = laid_out(tokens.ids, self.vocabulary.pad_id)
        before, suffix = len(self.vocabulary.prefix), self.vocabulary.suffix
        ids[:, :before] = self.vocabulary.prefix
        if suffix:
            ids[np.arange(len(ids))[:, None], before + counts[:, None] + np.arange(len(suffix))] = suffix
        ends = _ends(tokens, np.diff(offsets)) if tokens.ends is None else tokens.ends
        words = None if tokens.words is None else laid_out(tokens.words, NO_WORD)
        return Padded(ids, laid_out(tokens.starts, NOWHERE), laid_out(ends, NOWHERE), words)

    def cut(self, text: bytes, start: int, length: int) -> tuple[int, int]:
        """Return start and length of a piece of a row, in bytes, moved to where it may be cut; at least a word.

        Args:
            text: the whole row; start, length: about where the piece should be, in bytes.
        """
        if self.kind != TEXTS:
            return start, max(length, 1)
        starts, ends = word_borders(text)
        if not len(starts):
            return 0, len(text)
        first = int(starts[max(int(np.searchsorted(starts, start, "right")) - 1, 0)])
        last = int(np.searchsorted(ends, first + length, "right")) - 1
        after = int(np.searchsorted(ends, first, "right"))
        return first, int(ends[max(last, after)]) - first


SIX_MER_CODING = Coding(KmerTokenizer(), SIX_MERS)


def coding_of(explanandum: Explanandum, window_tokens: int = 0) -> Coding:
    """Return how sequences become tokens for a classifier.

    Args:
        window_tokens: of the longest row, special ones not counted; 0: as many as the classifier takes.
    Raises: UsageError if it takes fewer; MissingExtraError.
    """
    from wyr_batch.models.families.tokenised import Tokenised

    if not isinstance(explanandum, Tokenised):
        return SIX_MER_CODING
    from wyr_batch.tokens.subwords import SubwordTokenizer  # needs an extra

    vocabulary = explanandum.vocabulary
    most = explanandum.max_tokens - vocabulary.n_special
    if not 0 <= window_tokens <= most:
        raise UsageError("--window", f"{window_tokens} tokens", f"at most {most}, what the classifier takes")
    kind = explanandum.input
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / vocabulary.file
        path.write_text(explanandum.tokenizer.json, encoding="utf-8")
        return Coding(SubwordTokenizer(path, vocabulary, kind), vocabulary, kind, window_tokens or most)


def letters_of(bases: Uint8s, offsets: Int64s) -> Int64s:
    """Return the code points of UTF-8 rows, int64 [n]."""
    begun = np.concatenate(([0], np.cumsum((bases & 0xC0) != 0x80)))
    counts: Int64s = np.diff(begun[offsets])
    return counts


def pair_offset(first: str) -> int:
    """Return the byte where the second text of a pair begins."""
    return len(first.encode()) + len(BETWEEN_PAIR)


def word_borders(text: bytes) -> tuple[Int64s, Int64s]:
    """Return the bytes of a UTF-8 text where its words begin and where they end, int64 [W] each.

    >>> [places.tolist() for places in word_borders("né, ok".encode())]
    [[0, 3, 5], [3, 4, 7]]
    """
    points = code_points(text.decode("utf-8", "replace"))
    if not len(points):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    spaces = of_letters(points, lambda point: chr(point).isspace())
    inner = of_letters(points, is_joining)
    n_bytes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    at = np.concatenate(([0], np.cumsum(n_bytes)))
    border = np.ones(len(points) + 1, bool)
    border[1:-1] = ~(inner[:-1] & inner[1:])
    return at[:-1][border[:-1] & ~spaces], at[1:][border[1:] & ~spaces]


def _ends(tokens: Tokens, lengths: Int64s) -> npt.NDArray[np.integer]:
    """Return where tokens end that leave no gap: where the next begins, the last where its row ends."""
    ends = np.empty(len(tokens.ids), np.int64)
    ends[:-1] = tokens.starts[1:]
    some = tokens.counts > 0
    ends[tokens.offsets[1:][some] - 1] = lengths[some]
    return ends
