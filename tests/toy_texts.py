"""Texts whose label one known word decides, and tiny BERTs that have learnt it: made here, seeded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F
from wyr_batch.train.data.coding import coding_of
from wyr_batch.train.data.labelled import LabelledReads

from wyr_batch.models.checkpoints import load_explanandum
from wyr_batch.models.families.quiet import quiet_transformers
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.ranks import Rank

# Every word is tokens of two or three letters, so a mask of words is a mask of several tokens.
FILLERS = [f"{a}{b}{c}" for a in ("ba", "ko", "li") for b in ("mu", "né", "ti") for c in ("", "sa", "ro")]
SIGNAL = {"bad": "ziwaqu", "good": "xevoju"}
LABELS = tuple(SIGNAL)
MULTI = ("rude", "false")
MULTI_SIGNAL = dict(zip(MULTI, SIGNAL.values(), strict=True))
PARTS = ("ba", "ko", "li", "mu", "né", "ti", "sa", "ro", "zi", "wa", "qu", "xe", "vo", "ju")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *PARTS, *(f"##{part}" for part in PARTS))
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_size": 32}
MAX_TOKENS = 48


class Texts(NamedTuple):
    """Texts with their labels int64 [n, R] and the spans of the words that decide, in code points."""

    texts: list[str]
    labels: np.ndarray
    spans: list[list[tuple[int, int]]]


class Toy(NamedTuple):
    folder: Path
    model: Tokenised
    ranks: list[Rank]


def made_texts(n: int, seed: int, multi: bool = False) -> Texts:
    """Return texts of 6 to 14 words; of one label each, or of several labels or none."""
    rng = np.random.default_rng(seed)
    signals = list((MULTI_SIGNAL if multi else SIGNAL).values())
    texts, labels, spans = [], [], []
    for _ in range(n):
        words = rng.choice(FILLERS, int(rng.integers(6, 15))).tolist()
        present = rng.random(len(signals)) < 0.4 if multi else np.arange(len(signals)) == rng.integers(len(signals))
        places = rng.permutation(len(words))[: int(present.sum())]
        for place, signal in zip(places, np.flatnonzero(present), strict=True):
            words[place] = signals[signal]
        begins = np.cumsum([0, *(len(word) + 1 for word in words)])
        spans.append([(int(begins[place]), int(begins[place]) + len(words[place])) for place in sorted(places)])
        texts.append(" ".join(words))
        labels.append(present.astype(np.int64) if multi else [int(present.argmax())])
    return Texts(texts, np.array(labels), spans)


def labelled(made: Texts, seconds: Sequence[str] = ()) -> LabelledReads:
    """Return texts as training has them, not yet coded."""
    rows = [f"{a}\n{b}" for a, b in zip(made.texts, seconds, strict=True)] if seconds else made.texts
    encoded = [text.encode() for text in rows]
    return LabelledReads(
        np.frombuffer(b"".join(encoded), np.uint8),
        np.cumsum([0, *map(len, encoded)]),
        made.labels,
        np.zeros(len(rows), bool),
        second=np.array([len(text.encode()) + 1 for text in made.texts]) if seconds else None,
        rationales=tuple(np.array(spans, np.int64).reshape(-1, 2) for spans in made.spans),
    )


def untrained_bert(multi: bool = False) -> Toy:
    """Return a BERT that has learnt nothing, as its folder loads."""
    return _untrained(multi)


@cache
def _untrained(multi: bool) -> Toy:
    names = MULTI if multi else LABELS
    folder = Path(mkdtemp(prefix="toy-texts-"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SIZES,
        vocab_size=len(VOCABULARY),
        max_position_embeddings=MAX_TOKENS,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type="multi_label_classification" if multi else "single_label_classification",
        pad_token_id=0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    save_wordpieces(folder)
    with quiet_transformers():
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return loaded(folder)


def loaded(folder: Path) -> Toy:
    model, ranks = load_explanandum(folder)
    assert isinstance(model, Tokenised)
    return Toy(folder, model, ranks)


def trained_bert(multi: bool = False) -> Toy:
    """Return a BERT that calls texts by the words that decide."""
    return _trained(multi)  # made once, however it is asked for


@cache
def _trained(multi: bool) -> Toy:
    toy, folder = loaded(untrained_bert(multi).folder), Path(mkdtemp(prefix="toy-texts-"))
    fit(toy.model, multi)
    save_wordpieces(folder)
    with quiet_transformers():
        toy.model.model.save_pretrained(folder)
    return loaded(folder)


def save_wordpieces(folder: Path) -> None:
    """Write a tokenizer of word pieces, with [CLS] and [SEP]."""
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    with quiet_transformers():
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
        ).save_pretrained(folder)


def fit(model: Tokenised, multi: bool, steps: int = 120) -> None:
    """Train a classifier on new texts at every step, in half of which some words are hidden, as masks hide them.

    Where what decides is hidden it learns that no label is there, or of a single label to give a uniform answer.
    """
    coding, rng = coding_of(model), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    signals = [signal.encode() for signal in (MULTI_SIGNAL if multi else SIGNAL).values()]
    for step in range(steps):
        reads = labelled(made_texts(48, 1000 + step, multi))
        padded = coding.padded(reads.bases, reads.offsets)
        assert padded.words is not None
        hidden = rng.random((48, 99)) < rng.random((48, 1)) * (np.arange(48) % 2)[:, None]  # words
        kept = ~np.take_along_axis(hidden, padded.words.clip(0), axis=1)
        seen = np.zeros((48, len(signals)), bool)
        for row in range(48):
            text = reads.text(row).decode()
            for place, signal in enumerate(signals):
                start = text.find(signal.decode())
                inside = (padded.starts[row] >= start) & (padded.starts[row] < start + len(signal))
                seen[row, place] = start >= 0 and bool(kept[row, inside].all())
        wanted = torch.from_numpy(seen).float()
        wanted = torch.stack((1 - wanted, wanted), dim=2).flatten(1) if multi else wanted
        if not multi:
            wanted[wanted.sum(dim=1) == 0] = 1 / len(signals)
        ids = torch.from_numpy(padded.ids)
        mask = model.rank_masks(ids, torch.from_numpy(kept).float().unsqueeze(1)).squeeze(1)
        logits = model(ids, mask)
        loss = torch.stack([F.cross_entropy(logits[:, s], wanted[:, s]) for s in model.slices]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
