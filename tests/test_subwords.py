"""Tokens of a tokenizer.json: spans, words, pairs, and how they stand in rows and windows."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from wyr_batch.errors import ModelError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.rows.segments import find_segments, running_sum
from wyr_batch.tokens.batches import kept_tokens, pad_batch
from wyr_batch.tokens.plan import Planner
from wyr_batch.tokens.subwords import SubwordTokenizer
from wyr_batch.tokens.tokens import NO_WORD, Tokens
from wyr_batch.vocabulary import Vocabulary

TEXTS = ["The unbelievable film was great, wasn't it?", "  two  spaces ", "naïve café 😀 日本語 x", "", "good\r\nbad"]


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS * 3, trainers.WordPieceTrainer(vocab_size=80, special_tokens=special))
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


VOCABULARY = Vocabulary(400, prefix=(2,), suffix=(3,), between=(3,), pad_id=0, drawn=(0, 80), file="tokenizer.json")
KINDS = {"word piece": word_piece, "byte level": byte_level, "metaspace": metaspace}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SubwordTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    KINDS[request.param]().save(str(path))
    return SubwordTokenizer(path, VOCABULARY, "text")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=4))
def test_spans_rise_never_overlap_and_lie_in_their_text(tokenizer: SubwordTokenizer, texts: list[str]) -> None:
    tokens = tokenizer.tokenise(ReadChunk.from_texts(texts))
    assert tokens.ends is not None
    assert tokens.words is not None
    for row, text in enumerate(texts):
        part = slice(tokens.offsets[row], tokens.offsets[row + 1])
        starts, ends, words = tokens.starts[part].tolist(), tokens.ends[part].tolist(), tokens.words[part].tolist()
        alone = tokenizer.tokenise(ReadChunk.from_texts([text]))
        assert (alone.starts.tolist(), alone.ids.tolist()) == (starts, tokens.ids[part].tolist())
        assert alone.words.tolist() == words
        flat = [edge for pair in zip(starts, ends, strict=True) for edge in pair]
        assert flat == sorted(flat)
        assert not flat or (flat[0] >= 0 and flat[-1] <= len(text))
        assert all(not text[a].isspace() for a, b in zip(starts, ends, strict=True) if a < b)
        assert not words or (words[0] == 0 and set(np.diff(words)) <= {0, 1})


def test_words_are_what_a_reader_calls_words(tokenizer: SubwordTokenizer) -> None:
    texts = ["The unbelievable film, was it?", "naïve 日本 x2"]
    tokens = tokenizer.tokenise(ReadChunk.from_texts(texts))
    found: list[list[str]] = []
    for row, text in enumerate(texts):
        spans: dict[int, tuple[int, int]] = {}
        for i in range(tokens.offsets[row], tokens.offsets[row + 1]):
            word, start, end = (int(values[i]) for values in (tokens.words, tokens.starts, tokens.ends))
            if start < end:
                spans[word] = (min(start, spans.get(word, (start, end))[0]), end)
        found.append([text[a:b] for a, b in spans.values()])
    assert found[0] == ["The", "unbelievable", "film", ",", "was", "it", "?"]
    assert found[1][0] == "naïve"
    assert found[1][-1] == "x2"
    assert "日本" not in found[1]


def test_every_character_that_is_kept_is_in_a_token(tokenizer: SubwordTokenizer) -> None:
    for text in TEXTS:
        tokens = tokenizer.tokenise(ReadChunk.from_texts([text]))
        covered = {i for a, b in zip(tokens.starts, tokens.ends, strict=True) for i in range(a, b)}
        seen = {i for i, letter in enumerate(text) if not letter.isspace()}
        missing = {text[i] for i in seen - covered}
        assert not any(unicodedata.category(letter)[0] in "LN" for letter in missing), missing


def test_pairs_have_their_separator_between_and_no_segment_across(tokenizer: SubwordTokenizer) -> None:
    chunk = ReadChunk.from_texts(["good film", "", "bad"], ["great film", "only second", ""])
    tokens = tokenizer.tokenise(chunk)
    each = [tokenizer.tokenise(ReadChunk.from_texts([text])).ids.tolist() for text in ("good film", "great film")]
    first = tokens.ids[: tokens.offsets[1]].tolist()
    assert first == [*each[0], 3, *each[1]]
    middle = len(each[0])
    assert (tokens.starts[middle], tokens.ends[middle], tokens.words[middle]) == (9, 9, NO_WORD)
    assert tokens.starts[middle + 1] == 10
    assert tokens.ids[tokens.offsets[1]] == 3
    assert tokens.ids[tokens.offsets[3] - 1] == 3
    mask = np.ones(len(tokens.ids), np.float32)
    segments = find_segments(mask, running_sum(mask), tokens, chunk.lengths)
    assert [(int(a), int(b)) for a, b in zip(segments.start, segments.end, strict=True)][:2] == [(0, 9), (10, 20)]


def test_a_model_without_pairs_refuses_them_and_long_pairs_are_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    word_piece().save(str(path))
    single = SubwordTokenizer(path, Vocabulary(400, (2,), (3,), None, 0, (0, 80), "tokenizer.json"), "text")
    chunk = ReadChunk.from_texts(["a good film"], ["a bad film"])
    work = Planner(50, 5, 1000, tokenizer=single, vocabulary=single.vocabulary).plan(chunk)
    assert work.refused == {0: "a pair of texts, which this model does not take"}
    assert not work.batches
    both = SubwordTokenizer(path, VOCABULARY, "text")
    work = Planner(4, 1, 1000, tokenizer=both, vocabulary=VOCABULARY).plan(chunk)
    assert "expected" not in work.refused[0]
    assert work.refused[0].startswith("a pair of ")
    assert not work.batches


def test_segments_are_of_whole_words() -> None:
    ids = np.array([5, 6, 7, 8], np.int32)
    tokens = Tokens(
        ids,
        np.array([0, 2, 5, 9], np.int32),
        np.array([0, 4]),
        np.array([2, 4, 8, 12], np.int32),
        np.array([0, 0, 1, 2], np.int32),
    )
    mask = np.array([0.9, 0.2, 0.1, 0.8], np.float32)
    found = find_segments(mask, running_sum(mask), tokens, np.array([12]))
    assert (found.start.tolist(), found.end.tolist()) == ([0, 9], [4, 12])
    np.testing.assert_allclose(found.mean, [0.55, 0.8])


def test_windows_carry_the_special_tokens(tokenizer: SubwordTokenizer) -> None:
    chunk = ReadChunk.from_texts(["film great good bad it was " * 5, "good"])
    work = Planner(8, 2, 1000, tokenizer=tokenizer, vocabulary=VOCABULARY).plan(chunk)
    values = np.full(len(work.tokens.ids), -1)
    for rows in work.batches:
        batch = pad_batch(work.tokens.ids, work.windows, rows, None, VOCABULARY)
        assert (batch[:, 0] == 2).all()
        for row, window in zip(batch, rows, strict=True):
            n = int(work.windows.count[window])
            assert row[n + 1] == 3
            assert (row[n + 2 :] == 0).all()
        cell, token = kept_tokens(work.windows, rows, batch.shape[1], 1)
        values[token] = batch.ravel()[cell]
    np.testing.assert_array_equal(values, work.tokens.ids)


def test_special_tokens_that_a_text_spells_out_are_text(tokenizer: SubwordTokenizer) -> None:
    for name in ("[SEP]", "[PAD]", "</s>", "<pad>"):
        tokens = tokenizer.tokenise(ReadChunk.from_texts([f"good {name} film"]))
        assert not set(tokens.ids.tolist()) & {0, 2, 3}, name


def test_reads_are_upper_cased_and_proteins_too(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer(models.BPE({"A": 0, "C": 1, "G": 2, "T": 3, "AC": 4}, [("A", "C")]))
    tokenizer.save(str(path))
    vocabulary = Vocabulary(5, (), (), None, 0, (0, 5), "tokenizer.json")
    tokens = SubwordTokenizer(path, vocabulary, "reads").tokenise(ReadChunk.from_sequences(["acGU", "ACAC"]))
    assert tokens.ids.tolist() == [4, 2, 3, 4, 4]
    assert tokens.ends.tolist() == [2, 3, 4, 2, 4]
    assert tokens.words is None


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": 1}))
    with pytest.raises(ModelError, match=r"tokenizer\.json: got '.*', expected a tokenizer\.json"):
        SubwordTokenizer(path, VOCABULARY, "text")
