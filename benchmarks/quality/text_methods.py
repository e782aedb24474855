"""The explanations of texts that text_rivals.py compares. See there for what each one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.text_lrp import relevance, with_rules
from benchmarks.quality.text_measures import Classifier, Floats, Scorer, Text

Method = Callable[[Text, int], Floats]  # a text and a class -> scores of its tokens, float64 [n]
KERNEL_WIDTH = 25.0  # of LIME, on cosine distances times 100
RIDGE = 1.0


class Rivals:
    """Methods that take a text at a time, by name."""

    def __init__(self, classifier: Classifier, n_samples: int, n_steps: int, seed: int) -> None:
        self.classifier, self.n_samples, self.n_steps = classifier, n_samples, n_steps
        self._random = np.random.default_rng(seed)
        self._ruled = with_rules(classifier.model)
        self.methods: dict[str, Method] = {
            "integrated_gradients": self.integrated_gradients,
            "kernel_shap": self.kernel_shap,
            "lime": self.lime,
            "attn_lrp": self.attn_lrp,
            "leave_one_out": self.leave_one_out,
            "random": lambda text, _: self._random.random(len(text)),
        }

    def integrated_gradients(self, text: Text, target: int) -> Floats:
        """Sum over the width of gradients along the way from [PAD] at every token, of the class's probability."""
        from captum.attr import LayerIntegratedGradients

        model, device = self.classifier.model, self.classifier.device
        ids = text.ids.unsqueeze(0)
        blank = ids.masked_fill(text.inside, model.config.pad_token_id or 0)

        def probability(input_ids: Tensor) -> Tensor:
            attended = torch.ones_like(input_ids)
            logits = model(input_ids=input_ids, attention_mask=attended).logits
            return torch.softmax(logits.float(), dim=1)[:, target]

        kind = LayerIntegratedGradients(probability, model.get_input_embeddings())
        with torch.enable_grad():
            there = ids.to(device), blank.to(device)
            found = kind.attribute(*there, n_steps=self.n_steps, internal_batch_size=self.n_steps)
        return _numbers(found[0].sum(dim=-1).cpu()[text.inside])

    def kernel_shap(self, text: Text, target: int) -> Floats:
        """Shapley values by captum's regression on sampled coalitions of tokens."""
        from captum.attr import KernelShap

        ones = torch.ones(1, len(text))
        settings: dict[str, Any] = {"n_samples": self.n_samples, "perturbations_per_eval": self.n_samples}
        with torch.no_grad():
            kind = KernelShap(lambda kept: self.classifier.hidden(text, kept)[:, target])
            return _numbers(kind.attribute(ones, torch.zeros_like(ones), **settings)[0])

    def lime(self, text: Text, target: int) -> Floats:
        """Ridge regression on texts with 1 to n tokens hidden, near ones weighed more; the first sample is the text.

        Ribeiro et al., "Why should I trust you?", KDD 2016, with the settings of its package for texts.
        """
        n = len(text)
        kept = np.ones((self.n_samples, n))
        for row in kept[1:]:
            row[self._random.choice(n, self._random.integers(1, n + 1), replace=False)] = 0
        with torch.no_grad():
            values = _numbers(self.classifier.hidden(text, torch.from_numpy(kept))[:, target])
        distance = 100 * (1 - np.sqrt(kept.mean(axis=1)))  # cosine to the whole text
        weights = np.exp(-((distance / KERNEL_WIDTH) ** 2) / 2)
        centred = kept - np.average(kept, axis=0, weights=weights)
        weighed = (centred * weights[:, None]).T
        effects: Floats = np.linalg.solve(weighed @ centred + RIDGE * np.eye(n), weighed @ values)
        return effects

    def attn_lrp(self, text: Text, target: int) -> Floats:
        ids = text.ids.to(self.classifier.device)
        return _numbers(relevance(self._ruled, ids, target).cpu()[text.inside])

    def leave_one_out(self, text: Text, target: int) -> Floats:
        """Probability that the class loses when a token is hidden."""
        n = len(text)
        with torch.no_grad():
            probs = self.classifier.hidden(text, torch.cat([torch.ones(1, n), 1 - torch.eye(n)]))[:, target]
        return _numbers(probs[0] - probs[1:])

    def scorer(self, name: str) -> Scorer:
        """Return a method as a Scorer."""
        method, read = self.methods[name], self.classifier.read
        return lambda texts, classes: [method(read(t), c) for t, c in zip(texts, classes, strict=True)]


def explainer_scorer(bundle: Path, classifier: Classifier) -> Scorer:
    """Return the Explainer of a text bundle as a Scorer: its mask for the class that is asked for.

    Raises: ValueError if the bundle's tokens or labels are not those of the classifier.
    """
    import wyr_batch

    masker = wyr_batch.load(bundle)
    (rank,) = masker.bundle.ranks
    if set(rank.labels) != set(classifier.labels):
        raise ValueError(f"{bundle}: got the labels {rank.labels}, expected those of the classifier.")

    def scores(texts: Sequence[str], classes: Sequence[int]) -> list[Floats]:
        found: list[Floats] = [np.empty(0)] * len(texts)
        for target in sorted(set(classes)):
            rows = [i for i, each in enumerate(classes) if each == target]
            explained = masker.predict([texts[i] for i in rows], explain=f"{rank.name}={classifier.labels[target]}")
            for i, prediction in zip(rows, explained, strict=True):
                found[i] = prediction.rank_masks[0].astype(np.float64)
                if len(found[i]) != (expected := len(classifier.read(texts[i]))):
                    raise ValueError(f"{bundle}, {texts[i]!r}: got {len(found[i])} tokens, expected {expected}.")
        return found

    return scores


def _numbers(values: Tensor) -> Floats:
    return values.detach().double().numpy()
