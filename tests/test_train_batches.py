"""Training batches: of 6-mers exactly those of before, of other tokens cut where they may be, joined and dealt out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from toy_texts import FILLERS, VOCABULARY, labelled, made_texts, untrained_bert
from wyr_batch.train.data.batches import StepBatches, evaluation_batch, evaluation_batches, sampling_weights
from wyr_batch.train.data.coding import Coding, coding_of, word_borders
from wyr_batch.train.data.labelled import LabelledReads
from wyr_batch.train.data.pieces import LabelledBatch, Pieces, cut_batch, joined_batch

from wyr_batch.errors import InputError, UsageError
from wyr_batch.tokens.subwords import SubwordTokenizer
from wyr_batch.vocabulary import Vocabulary

# Of the batches that commit 819e237 made.
BATCHES = [
    ({}, ["be83213a9fa1c5f7", "540852c156dee71f", "660de754e41c3580", "f2343b09e06c4bc3"]),
    ({"chimera_share": 0.5}, ["8d97f2473bb966ce", "5b5da7b9d367f62b", "fb21cef88f86d9c8", "774f4a4ac4af9c09"]),
    (
        {"window_bp": 240, "short_bp": 30, "full_share": 0.2, "balanced": False, "seed": 5},
        ["eda4f3734c5b65be", "d5d397b09fc22f43", "5b99556bd80cb510", "2a0b52ad7e07bebe"],
    ),
]
EVALUATED = "2c51d284d900072b"


def six_mers() -> LabelledReads:
    rng = np.random.default_rng(7)
    lengths = rng.integers(20, 900, 80)
    shares = [0.2, 0.2, 0.2, 0.2, 0.04, 0.04, 0.03, 0.03, 0.03, 0.02, 0.01]
    bases = np.frombuffer(b"ACGTNacgtuR", np.uint8)[rng.choice(11, lengths.sum(), p=shares)]
    labels = np.stack([rng.integers(0, k, 80) for k in (2, 3, 5)], axis=1)
    labels[rng.random(80) < 0.2, 1:] = -1
    return LabelledReads(bases, np.concatenate(([0], np.cumsum(lengths))), labels, rng.random(80) < 0.5)


def digest(batch: LabelledBatch) -> str:
    found = hashlib.sha256()
    for name in ("input_ids", "labels", "frames", "starts", "inside", "other_labels"):
        values = getattr(batch, name)
        found.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        found.update(values.numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("options", "expected"), BATCHES)
def test_batches_of_six_mers_are_to_the_bit_what_they_were(options: dict[str, float], expected: list[str]) -> None:
    batches = StepBatches(six_mers(), 40, batch_reads=8, **options)
    assert [digest(batches[step]) for step in (0, 7, 17, 39)] == expected


def test_windows_of_six_mers_are_what_they_were_and_tokens_leave_no_gap() -> None:
    batch = evaluation_batch(six_mers(), np.arange(20), 300)
    assert digest(batch) == EVALUATED
    for starts, ends, ids in zip(batch.starts, batch.ends, batch.input_ids, strict=True):
        n = int((ids != 1).sum())
        assert torch.equal(starts[2:n], ends[1 : n - 1])
    assert batch.words.shape == (20, 0)


@given(st.text(st.sampled_from("aé 東,\n'😀1́ \t")))
def test_words_begin_and_end_where_nothing_is_cut(text: str) -> None:
    starts, ends = word_borders(text.encode())
    words = [text.encode()[a:b].decode() for a, b in zip(starts, ends, strict=True)]
    assert "".join(words) == "".join(text.split()), "all but white space, in order, and no character is cut"
    for a, b in zip(starts[1:], ends, strict=False):
        assert a >= b
        if a == b:  # two words touch: one side is no letter, mark or digit, or is an ideograph
            before, after = text.encode()[:b].decode()[-1], text.encode()[a:].decode()[0]
            assert not (before in "aé1́" and after in "aé1́")


def tokens_of(batch: LabelledBatch, row: int, coding: Coding) -> list[int]:
    ids = batch.input_ids[row].tolist()
    return [i for i in ids if i not in (*coding.vocabulary.special_ids, coding.vocabulary.pad_id)]


def coded_texts(n: int, window_tokens: int = 0, seed: int = 0, multi: bool = False) -> LabelledReads:
    return labelled(made_texts(n, seed, multi)).coded(coding_of(untrained_bert(multi).model, window_tokens))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 31), st.sampled_from([6, 12, 46]), st.sampled_from([0.0, 0.5]))
def test_pieces_of_texts_are_whole_words_within_the_window(step: int, window: int, share: float) -> None:
    reads = coded_texts(60, window)
    batches = StepBatches(reads, 32, batch_reads=8, full_share=0.3, chimera_share=share, seed=4)
    batch = batches[step]
    assert digest(batch) == digest(batches[step]), "a batch is a function of its step"
    assert batch.input_ids.shape[1] <= window + 2
    assert (batch.input_ids[:, 0] == 2).all()
    for row in range(8):
        n = int((batch.input_ids[row] != 0).sum())
        assert batch.input_ids[row, n - 1] == 3, "[SEP] after the last token"
        spans = list(zip(batch.starts[row, 1 : n - 1].tolist(), batch.ends[row, 1 : n - 1].tolist(), strict=True))
        assert all(a < b for a, b in spans)
        assert spans[0][0] == 0, "a piece begins with a word"
        assert batch.starts[row, 0] == batch.starts[row, n - 1] == -1
        first_of_word = np.flatnonzero(np.diff(batch.words[row, 1 : n - 1].numpy(), prepend=-1))
        assert all(not VOCABULARY[i].startswith("##") for i in batch.input_ids[row, 1 + first_of_word].tolist())


def test_texts_are_joined_with_a_space_and_told_apart_by_their_spans() -> None:
    reads = coded_texts(40)
    rng = np.random.default_rng(1)
    rows = rng.permutation(40)
    whole = [Pieces(r, np.zeros(20, int), reads.lengths[r], np.zeros(20, bool)) for r in (rows[:20], rows[20:])]
    none = replace(whole[1], lengths=np.where(np.arange(20) < 3, 0, whole[1].lengths))
    other_first = rng.random(20) < 0.5
    batch = joined_batch(reads, whole[0], none, other_first)
    for i in range(20):
        a, b = reads.text(int(rows[i])).decode(), reads.text(int(rows[20 + i])).decode()
        joined = a if i < 3 else " ".join([b, a] if other_first[i] else [a, b])
        encoded = reads.coding.tokenise(np.frombuffer(joined.encode(), np.uint8), np.array([0, len(joined.encode())]))
        assert tokens_of(batch, i, reads.coding) == encoded.ids[:46].tolist()
        border = len(b) + 1 if other_first[i] else len(a)
        for start, inside in zip(batch.starts[i].tolist(), batch.inside[i].tolist(), strict=True):
            assert inside == (start < 0 or i < 3 or (start >= border) == bool(other_first[i]))


def test_chimeras_of_texts_are_of_differing_labels_and_no_longer_than_the_window() -> None:
    reads = coded_texts(80)
    n_chimeras = 0
    for step in range(6):
        batch = StepBatches(reads, 6, batch_reads=32, chimera_share=0.5, full_share=1.0)[step]
        is_chimera = (batch.other_labels >= 0).any(dim=1)
        assert (batch.labels != batch.other_labels)[is_chimera].all()
        both = batch.inside[is_chimera] & (batch.starts[is_chimera] >= 0)
        assert both.any(dim=1).float().mean() > 0.9, "next to all show something of what is asked for"
        n_chimeras += int(is_chimera.sum())
    assert 0.4 < n_chimeras / (6 * 32) < 0.6


def byte_pairs(folder: Path) -> Coding:
    """Return a tokenizer of reads whose tokens are of one to four bases."""
    merges = [("A", "C"), ("G", "T"), ("T", "T"), ("AC", "GT"), ("AC", "A")]
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"ACGT", *map("".join, merges)]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="[UNK]"))
    made.save(str(folder / "tokenizer.json"))
    vocabulary = Vocabulary(len(words), (1,), (2,), None, 0, (4, len(words)), "tokenizer.json")
    return Coding(SubwordTokenizer(folder / "tokenizer.json", vocabulary, "reads"), vocabulary, "reads", 500)


def test_reads_of_byte_pairs_keep_both_strands(tmp_path: Path) -> None:
    coding, rng = byte_pairs(tmp_path), np.random.default_rng(0)
    bases = rng.choice(np.frombuffer(b"ACGT", np.uint8), 200)
    labels, in_frame = np.zeros((1, 2), int), np.ones(1, bool)
    reads = LabelledReads(bases, np.array([0, 200]), labels, in_frame).coded(coding)
    other = np.frombuffer(bytes(bases[::-1]).translate(bytes.maketrans(b"ACGT", b"TGCA")), np.uint8)
    turned = LabelledReads(other, reads.offsets, labels, in_frame).coded(coding)
    zero, length, yes = np.zeros(1, np.int64), np.array([200]), np.ones(1, bool)
    forward = cut_batch(turned, Pieces(zero, zero, length, ~yes))
    assert torch.equal(cut_batch(reads, Pieces(zero, zero, length, yes)).input_ids, forward.input_ids)
    assert 60 < forward.input_ids.shape[1] < 200
    batches = StepBatches(reads, 16, batch_reads=32, full_share=1.0)
    drawn = [tuple(row[row != 0].tolist()) for step in range(16) for row in batches[step].input_ids]
    strands = [tuple(cut_batch(one, Pieces(zero, zero, length, ~yes)).input_ids[0].tolist()) for one in (reads, turned)]
    assert set(drawn) == set(strands), "a whole read, on either strand"
    assert 0.4 < drawn.count(strands[0]) / len(drawn) < 0.6


def test_pairs_stay_whole_and_those_beyond_the_window_are_left_out() -> None:
    made = made_texts(30, 3)
    seconds = [" ".join(FILLERS[: i % 7]) for i in range(30)]
    reads = labelled(made, seconds)
    coding = coding_of(untrained_bert().model, 40)
    coded = reads.coded(coding)
    counts = coding.tokenise(reads.bases, reads.offsets, reads.second).counts
    assert len(coded) == int((counts <= 40).sum()) < 30
    batch = StepBatches(coded, 4, batch_reads=8, full_share=0.0)[1]
    assert ((batch.input_ids == 3).sum(dim=1) == 2).all(), "one separator between, one behind"
    with pytest.raises(UsageError, match="--chimera-share: got it for pairs of texts"):
        StepBatches(coded, 4, chimera_share=0.5)
    with pytest.raises(InputError, match="got no sequence that the classifier takes, expected one of 1 to 2 tokens"):
        reads.coded(coding_of(untrained_bert().model, 2))
    with pytest.raises(UsageError, match="--window: got 47 tokens, expected at most 46, what the classifier takes"):
        coding_of(untrained_bert().model, 47)


def test_evaluation_takes_the_first_window_of_every_text_once() -> None:
    reads = coded_texts(50, 12)
    batches = evaluation_batches(reads, 0, batch_tokens=100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert reads.n_tokens is not None
    for rows in batches:
        batch = evaluation_batch(reads, rows, 0)
        assert batch.input_ids.numel() <= 100
        assert (batch.input_ids != 0).sum(dim=1).tolist() == (np.minimum(reads.n_tokens[rows], 12) + 2).tolist()


def test_labels_that_may_be_several_are_drawn_alike() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0], [0, 1], [0, 0], [0, -1]])
    weights = sampling_weights(labels, 8.0, multi_label=True)
    np.testing.assert_allclose(weights.sum(), 1)
    expected = np.array([1 / 3, 1 / 3, 1 / 3 + 1 / 2, 1 / 4, 1 / 4, 1 / 2, 1 / 4, 1 / 4])
    np.testing.assert_allclose(weights, expected / 3)
