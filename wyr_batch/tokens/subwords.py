"""Byte-pair, WordPiece, sentencepiece and other tokens of a tokenizer.json, as `tokenizers` makes them.

Spans are mended, for a mask has to say where it lies: sentencepiece counts the space before a word to its token, and a
character of several bytes may be several tokens of one span. Here a token begins at its first character that is no
white space and not before the last one has ended, so spans rise, never overlap, and are empty where a token has nothing
of its own.

    text      u n b e l i e v a b l e     f i l m        tokens of a word touch, with letters or digits on both sides
    tokens   |un|  |bel| ...            |film|           (ideographs and kana are words by themselves)
    words     0     0                    1

Reads of nucleotides are upper-cased and U is read as T, proteins are upper-cased, texts are left as they are.
"""

from __future__ import annotations

import json
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wyr_batch.checks.files import shown_path
from wyr_batch.errors import MissingExtraError, ModelError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.tokens.tokens import NO_WORD, Int32s, Int64s, Tokens
from wyr_batch.tokens.words import code_points, of_letters, word_numbers
from wyr_batch.vocabulary import Vocabulary

Bools = npt.NDArray[np.bool_]


class SubwordTokenizer:
    """Tokens of a tokenizer.json."""

    has_spans = True

    def __init__(self, path: Path, vocabulary: Vocabulary, kind: str) -> None:
        """
        Args:
            path: of tokenizer.json.
            kind: 'reads', 'proteins' or 'text', what is tokenised.
        Raises: MissingExtraError without tokenizers; ModelError if it cannot read the file.
        """
        try:
            import tokenizers
        except ImportError:
            raise MissingExtraError(f"the tokenizer of {shown_path(path.parent)}", "tokenizers", "text") from None
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no other kind
            raise ModelError(shown_path(path), f"'{str(error)[:200]}'", "a tokenizer.json", "Get it again.") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "[SEP]" in a text is a text like any other
        self.vocabulary, self.kind = vocabulary, kind
        self._reserved = np.array([*vocabulary.special_ids, vocabulary.pad_id], np.int32)
        self._unknown = self._unknown_id()

    def tokenise(self, chunk: ReadChunk) -> Tokens:
        """Return the tokens of a chunk's reads; spans and words are of code points.

        Special tokens that a text spells out are unknown tokens, or the text is refused where the model has none.
        """
        texts = self._texts(chunk)
        second = np.full(len(chunk), -1) if chunk.second is None else chunk.second
        is_pair = second >= 0
        parts, shifts, rows = self._parts(chunk, texts, second)
        encoded = self._tokenizer.encode_batch(parts, add_special_tokens=False)
        counts = np.array([len(one) for one in encoded], np.int64)
        ids = np.fromiter(chain.from_iterable(one.ids for one in encoded), np.int32, int(counts.sum()))
        spans = np.fromiter(
            chain.from_iterable(chain.from_iterable(one.offsets) for one in encoded), np.int64, 2 * len(ids)
        ).reshape(-1, 2)
        part_of = np.repeat(np.arange(len(parts)), counts)
        spelt_out = np.isin(ids, self._reserved)
        if self._unknown is not None:
            ids[spelt_out] = self._unknown
        spans += shifts[part_of][:, None]
        row_of = rows[part_of]
        if is_pair.any():
            ids, spans, row_of = self._with_between(ids, spans, row_of, part_of, rows, is_pair)
        offsets = np.searchsorted(row_of, np.arange(len(chunk) + 1)).astype(np.int64)
        starts, ends, words = _mended(spans, offsets, texts, with_words=self.kind == "text")
        if words is not None and is_pair.any():
            words[np.isin(ids, self.vocabulary.between or ()) & is_pair[row_of] & (starts == ends)] = NO_WORD
        refused: dict[int, str] = {}
        if not self.vocabulary.between:
            refused = {int(row): "a pair of texts, which this model does not take" for row in np.flatnonzero(is_pair)}
        if self._unknown is None:
            refused |= {int(row): "a special token of the model's, written out" for row in rows[part_of[spelt_out]]}
        return Tokens(ids, starts, offsets, ends, words, tuple(refused.items()))

    def _unknown_id(self) -> int | None:
        """Return the id of what the vocabulary has no token for, None if there is none."""
        model = json.loads(self._tokenizer.to_str())["model"]
        if isinstance(model.get("unk_id"), int):
            return int(model["unk_id"])
        token = model.get("unk_token")
        found: int | None = None if token is None else self._tokenizer.token_to_id(token)
        return found if found not in self._reserved else None

    def _texts(self, chunk: ReadChunk) -> list[str]:
        data, bounds = chunk.bases.tobytes(), chunk.offsets.tolist()
        texts = [data[a:b].decode("utf-8", "replace") for a, b in pairwise(bounds)]
        if self.kind == "reads":
            return [text.upper().replace("U", "T") for text in texts]
        return [text.upper() for text in texts] if self.kind == "proteins" else texts

    def _parts(self, chunk: ReadChunk, texts: list[str], second: Int64s) -> tuple[list[str], Int64s, Int64s]:
        """Return what is tokenised by itself, the code points before it in its row, and its row."""
        if not (second >= 0).any():
            return texts, np.zeros(len(texts), np.int64), np.arange(len(texts))
        parts, shifts, rows = [], [], []
        data, bounds = chunk.bases.tobytes(), chunk.offsets.tolist()
        for row, (text, at) in enumerate(zip(texts, second.tolist(), strict=True)):
            n_first = len(text) if at < 0 else len(data[bounds[row] : bounds[row] + at].decode()) - 1
            for start, end in ((0, n_first), (n_first + 1, len(text)))[: 1 + (at >= 0)]:
                parts.append(text[start:end])
                shifts.append(start)
                rows.append(row)
        return parts, np.array(shifts, np.int64), np.array(rows, np.int64)

    def _with_between(
        self, ids: Int32s, spans: Int64s, row_of: Int64s, part_of: Int64s, rows: Int64s, is_pair: Bools
    ) -> tuple[Int32s, Int64s, Int64s]:
        """Return tokens with the special ones between the texts of each pair, where the first text ends."""
        between = np.array(self.vocabulary.between or (), np.int32)
        firsts = np.flatnonzero(rows[:-1] == rows[1:])  # the first part of each pair
        at = np.repeat(np.searchsorted(part_of, firsts, "right"), len(between))
        ends = np.zeros(len(ids) + 1, np.int64)
        ends[1:] = spans[:, 1]
        where = ends[at]
        where[at == np.searchsorted(row_of, np.repeat(rows[firsts], len(between)))] = 0  # an empty first text
        spans = np.insert(spans, at, np.stack([where, where], axis=1), axis=0)
        return (
            np.insert(ids, at, np.tile(between, len(firsts))),
            spans,
            np.insert(row_of, at, np.repeat(rows[firsts], len(between))),
        )


def _mended(spans: Int64s, offsets: Int64s, texts: list[str], with_words: bool) -> tuple[Int32s, Int32s, Int32s | None]:
    """Return starts, ends and words of tokens, int32 [N] each.

    Args:
        spans: int64 [N, 2], as the tokenizer gives them; offsets: int64 [n + 1], tokens of each text.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    text_starts = np.concatenate(([0], np.cumsum(lengths)))
    points = code_points("".join(texts))
    counts = np.diff(offsets)
    shift = np.repeat(text_starts[:-1], counts)
    starts, ends = spans[:, 0] + shift, spans[:, 1] + shift
    # Counted over all texts, ends rise from text to text, so one running maximum serves all of them.
    latest = np.maximum.accumulate(ends) if len(ends) else ends
    before = np.concatenate((text_starts[:1], latest[:-1])) if len(ends) else ends
    starts = np.maximum(starts, before)
    next_letter = np.arange(len(points) + 1)
    spaces = of_letters(points, lambda point: chr(point).isspace())
    next_letter[:-1][spaces] = len(points)
    next_letter = np.minimum.accumulate(next_letter[::-1])[::-1]
    ends = np.maximum(ends, starts)
    starts = np.minimum(next_letter[starts], ends)
    starts = np.maximum(starts, shift)
    words = word_numbers(points, starts, ends, offsets) if with_words else None
    return (starts - shift).astype(np.int32), (ends - shift).astype(np.int32), words
