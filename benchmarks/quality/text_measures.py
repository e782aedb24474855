"""How good token scores of texts are, for any sequence classifier that transformers loads. See text_rivals.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from wyr_batch.train.measure.chimeras import LEAST_PROBABILITY, token_auc
from wyr_batch.train.measure.faithfulness import ERASER_SHARES
from wyr_batch.train.measure.regions import SHARES as SEGMENT_SHARES

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# Scores of each text's tokens for a class: (texts, class of each) -> float64 [n] each, without special tokens
Scorer = Callable[[Sequence[str], Sequence[int]], list[Floats]]

BATCH_ROWS = 64
OPEN_SHARE = 0.5  # of the tokens, best first, that are a method's segments


@dataclass(frozen=True)
class Text:
    """A text as the classifier reads it: ids int64 [T], inside bool [T], False at special tokens, starts int64 [n]."""

    ids: Tensor
    inside: Tensor
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


class Classifier:
    """A folder that AutoModelForSequenceClassification loads; softmax over its labels."""

    def __init__(
        self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, batch_rows: int = BATCH_ROWS
    ) -> None:
        """
        Args:
            device, dtype: where and how the model computes; what goes in and comes out is float32 on the CPU.
            batch_rows: of one text, with other tokens hidden in each.
        """
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
        self.model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.device, self._batch_rows = torch.device(device), batch_rows
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def read(self, text: str) -> Text:
        """Return a text's tokens; texts longer than the classifier reads are cut."""
        asked = {"return_special_tokens_mask": True, "return_offsets_mapping": True, "truncation": True}
        found = self._tokenizer(text, **asked)
        inside = ~torch.tensor(found["special_tokens_mask"], dtype=torch.bool)
        starts = np.array([start for start, _ in found["offset_mapping"]], np.int64)
        return Text(torch.tensor(found["input_ids"]), inside, starts[inside.numpy()])

    def logits(self, text: Text, kept: Tensor) -> Tensor:
        """Return logits [N, K] with token embeddings times `kept`, float [N, n]; special tokens are as they are."""
        mask = torch.ones(len(kept), len(text.ids))
        mask[:, text.inside] = kept.float()
        embedded = self.model.get_input_embeddings()(text.ids.unsqueeze(0).to(self.device))
        parts = mask.to(self.device, embedded.dtype).unsqueeze(-1).split(self._batch_rows)
        return torch.cat([self.model(inputs_embeds=embedded * part).logits for part in parts]).float().cpu()

    def hidden(self, text: Text, kept: Tensor) -> Tensor:
        """Return probabilities [N, K] with the tokens that are not kept hidden: their embeddings times 0."""
        return torch.softmax(self.logits(text, kept), dim=1)

    def deleted(self, text: Text, kept: Tensor) -> Tensor:
        """Return probabilities [N, K] of the texts without the tokens that are not kept."""
        whole = torch.ones(len(kept), len(text.ids), dtype=torch.bool)
        whole[:, text.inside] = kept > 0
        rows = [text.ids[row] for row in whole]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.model.config.pad_token_id or 0)
        is_token = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        there = {"input_ids": ids.to(self.device), "attention_mask": is_token.long().to(self.device)}
        return torch.softmax(self.model(**there).logits.float().cpu(), dim=1)

    def calls(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the class called of each text, int64 [B], and its probability."""
        with torch.inference_mode():
            read = [self.read(text) for text in texts]
            probs = torch.cat([self.hidden(text, torch.ones(1, len(text))) for text in read])
        best = probs.max(dim=1)
        return best.indices.numpy(), best.values.double().numpy()


def best(scores: Floats, share: float) -> Bools:
    """Return the best-scored `share` of tokens, at least one; of equal scores the earlier token first."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[: max(1, int(np.ceil(share * len(scores) - 1e-6)))]] = True
    return chosen


def best_segments(scores: Floats, share: float) -> Bools:
    """Return the tokens of the best `share` of segments by mean score, at least one.

    Segments are runs of the best half of the tokens.
    """
    edges = np.flatnonzero(np.diff(np.pad(best(scores, OPEN_SHARE).astype(np.int8), 1)))
    segments = list(zip(edges[::2], edges[1::2], strict=True))
    order = np.argsort([-scores[start:end].mean() for start, end in segments], kind="stable")
    chosen = np.zeros(len(scores), bool)
    for place in order[: max(1, round(share * len(order)))]:
        chosen[slice(*segments[place])] = True
    return chosen


@torch.inference_mode()
def faithfulness(classifier: Classifier, text: Text, target: int, scores: Floats) -> dict[str, float]:
    """Return comprehensiveness and sufficiency, on tokens and on segments, tokens hidden and tokens deleted."""
    taken = {
        "": np.array([best(scores, share) for share in ERASER_SHARES]),
        "segment_": np.array([best_segments(scores, share) for share in SEGMENT_SHARES]),
    }
    found = {}
    for erase, probabilities in (("", classifier.hidden), ("_deleted", classifier.deleted)):
        for name, chosen in taken.items():
            kept = np.concatenate([np.ones((1, len(scores))), ~chosen, chosen])
            plain, *rest = probabilities(text, torch.from_numpy(kept))[:, target].double().tolist()
            half = len(chosen)
            found[f"{name}comprehensiveness{erase}"] = plain - float(np.mean(rest[:half]))
            found[f"{name}sufficiency{erase}"] = plain - float(np.mean(rest[half:]))
    return found


@dataclass(frozen=True)
class Chimera:
    """Two texts of different class joined by a space: the class of each half, and the character where b begins."""

    text: str
    classes: tuple[int, int]
    b_start: int


def choose_chimeras(
    classifier: Classifier, texts: Sequence[str], labels: Sequence[int], n: int, seed: int
) -> list[Chimera]:
    """Return up to n chimeras of texts that are called rightly and surely by themselves, each used once."""
    waiting: list[int] = []
    chimeras = []
    for i in np.random.default_rng(seed).permutation(len(texts)):
        (called,), (prob,) = classifier.calls([texts[i]])
        if called != labels[i] or prob <= LEAST_PROBABILITY:
            continue
        partner = next((j for j in waiting if labels[j] != labels[i]), None)
        if partner is None:
            waiting.append(i)
            continue
        waiting.remove(partner)
        a, b = (partner, i) if len(chimeras) % 2 else (i, partner)
        chimeras.append(Chimera(f"{texts[a]} {texts[b]}", (labels[a], labels[b]), len(texts[a]) + 1))
        if len(chimeras) == n:
            break
    return chimeras


def position_auc(classifier: Classifier, chimeras: Sequence[Chimera], scorer: Scorer) -> list[float]:
    """Return for each chimera how well scores for a half's class find that half: mean AUC of its two questions."""
    texts = [chimera.text for chimera in chimeras]
    found = []
    for half in (0, 1):
        scores = scorer(texts, [chimera.classes[half] for chimera in chimeras])
        for chimera, given in zip(chimeras, scores, strict=True):
            in_b = classifier.read(chimera.text).starts >= chimera.b_start
            own = torch.from_numpy(in_b == bool(half)).unsqueeze(0)
            found.append(float(token_auc(torch.from_numpy(given).unsqueeze(0), own, torch.ones_like(own))))
    return np.array(found).reshape(2, -1).mean(axis=0).tolist()
