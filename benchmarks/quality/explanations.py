"""The explanations that rivals.py compares, and their measures. See there for what each one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, KernelShap, Lime
from torch import Tensor, nn
from wyr_batch.train.data.batches import evaluation_batch, evaluation_batches
from wyr_batch.train.data.labelled import LabelledReads
from wyr_batch.train.data.pieces import LabelledBatch
from wyr_batch.train.measure.chimeras import Chimeras, measure_chimeras
from wyr_batch.train.measure.explained import Explained, explain, first_classes
from wyr_batch.train.measure.faithfulness import best_tokens, measures, probability_curves
from wyr_batch.train.measure.regions import region_measures

from benchmarks.kit import timed
from benchmarks.quality.attn_lrp import relevance
from wyr_batch.models.encoder import rotary_angles, rotate
from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum

Method = Callable[[Explained, int, int], Tensor]
SMOOTHING_TOKENS = 10.0
SLOW_CHIMERAS = 8
OPEN_SHARE = 0.5  # of the tokens, best first, that are a method's regions


class Rivals:
    """Explanations of one read (row i of a batch) and rank, as scores float [T]; `<cls>` gets 0."""

    def __init__(self, model: Explanandum) -> None:
        self.model = model

    def _probability(self, found: Explained, i: int, rank: int) -> Callable[[Tensor], Tensor]:
        """Return mask of the read's tokens float [N, T - 1] -> probability of the explained class [N]."""
        model, classes = self.model, self.model.slices[rank]
        n = int(found.valid[i].sum())
        embedded, input_ids = found.embedded[i : i + 1, :n], found.input_ids[i : i + 1, :n]
        target = int(found.targets[i, rank])

        def probability(tokens: Tensor) -> Tensor:
            mask = torch.cat((torch.ones(len(tokens), 1), tokens.float()), dim=1)
            logits = model.classify(embedded.expand(len(tokens), -1, -1), input_ids.expand(len(tokens), -1), mask)
            return torch.softmax(logits[:, classes], dim=-1)[:, target]

        return probability

    def _with(self, attribute: Callable[[Any, Tensor, Tensor], Tensor], kind: Any) -> Method:
        def method(found: Explained, i: int, rank: int) -> Tensor:
            ones = torch.ones(1, int(found.valid[i].sum()) - 1)
            out = torch.zeros(found.valid.shape[1])
            explanation = attribute(kind(self._probability(found, i, rank)), ones, torch.zeros_like(ones))
            out[1 : ones.shape[1] + 1] = explanation[0].detach().float()
            return out

        return method

    def lime(self, n_samples: int) -> Method:
        def attribute(kind: Any, ones: Tensor, zeros: Tensor) -> Tensor:
            return kind.attribute(ones, zeros, n_samples=n_samples, perturbations_per_eval=min(n_samples, 64))

        return self._with(attribute, Lime)

    def kernel_shap(self) -> Method:
        return self._with(lambda k, ones, zeros: k.attribute(ones, zeros, perturbations_per_eval=25), KernelShap)

    def ablation(self) -> Method:
        return self._with(lambda k, ones, zeros: k.attribute(ones, zeros, perturbations_per_eval=64), FeatureAblation)

    def integrated_gradients(self) -> Method:
        return self._with(lambda k, ones, zeros: k.attribute(ones, zeros, n_steps=50), IntegratedGradients)

    def rollout(self, found: Explained, i: int, rank: int) -> Tensor:
        """Attention averaged over heads, half identity for the residual, multiplied through the layers."""
        encoder = self.model.encoder
        n = int(found.valid[i].sum())
        seen: list[Tensor] = []

        def keep(module: Any, inputs: tuple[Any, ...], _: Any) -> None:
            x = inputs[0]
            shape = (1, n, module.n_heads, module.head_size)
            angles = rotary_angles(n, module.rotary_embeddings.inv_freq)
            query = rotate((module.query(x) * module.head_size**-0.5).view(shape).transpose(1, 2), *angles)
            key = rotate(module.key(x).view(shape).transpose(1, 2), *angles)
            seen.append(torch.softmax(query @ key.transpose(2, 3), dim=-1)[0].mean(dim=0))

        hooks = [layer.attention.self.register_forward_hook(keep) for layer in encoder.encoder.layer]
        encoder.encode(found.embedded[i : i + 1, :n], found.valid[i : i + 1, :n])
        for hook in hooks:
            hook.remove()
        product = torch.eye(n)
        for attention in seen:
            product = (0.5 * attention + 0.5 * torch.eye(n)) @ product
        out = torch.zeros(found.valid.shape[1])
        out[:n] = product.mean(dim=0)
        out[0] = 0.0
        return out


def one_by_one(method: Method, found: Explained) -> Tensor:
    """Return scores [B, R, T] of a method that takes one read and rank at a time."""
    n_ranks = found.targets.shape[1]
    rows = [torch.stack([method(found, i, r) for r in range(n_ranks)]) for i in range(len(found.valid))]
    return torch.stack(rows)


def score_all(
    model: Explanandum, explainer: Explainer, reads: LabelledReads, window_bp: int, slow_reads: int, seed: int
) -> tuple[dict[str, list[Tensor]], dict[str, float], dict[str, int], list[Explained]]:
    """Score the tokens of every read with every method.

    Args:
        window_bp: bases of each read that are explained.
        slow_reads: how many of them lime_5000 gets.
    Returns: by method, scores [B, R, T] a batch, seconds, and reads; and the batches explained.
    """
    rivals, generator = Rivals(model), torch.Generator().manual_seed(seed)
    alone: dict[str, Method] = {
        "lime": rivals.lime(50),
        "lime_5000": rivals.lime(5000),
        "kernel_shap": rivals.kernel_shap(),
        "ablation": rivals.ablation(),
        "integrated_gradients": rivals.integrated_gradients(),
        "rollout": rivals.rollout,
    }
    scores: dict[str, list[Tensor]] = {}
    seconds: dict[str, float] = {}
    n_done: dict[str, int] = {}
    batches = []

    def take(name: str, n_reads: int, function: Callable[[], Tensor]) -> None:
        values: list[Tensor] = scores.setdefault(name, [])
        seconds[name] = seconds.get(name, 0.0) + timed(lambda: values.append(function())).wall_s
        n_done[name] = n_done.get(name, 0) + n_reads

    for rows in evaluation_batches(reads, window_bp):
        batch = evaluation_batch(reads, rows, window_bp)
        with torch.inference_mode():
            found = explain(model, explainer, batch)
            n = len(rows)
            take("explainer", n, lambda b=batch: explain(model, explainer, b).rank_masks())
            take("mask", n, lambda b=batch: explain(model, explainer, b).mask().unsqueeze(1).expand(-1, 3, -1))
            take("evidence", n, lambda f=found: plain_evidence(model, f))
            take("smoothed_evidence", n, lambda f=found: smoothed(plain_evidence(model, f), f.valid))
            take("random", n, lambda f=found: torch.rand(f.logits.shape, generator=generator))
        found = found.changed(torch.Tensor.clone)  # captum wants ordinary tensors
        take("attn_lrp", n, lambda f=found: all_relevance(model, f))
        for name, method in alone.items():
            few = name == "lime_5000"
            some = slow_reads - n_done.get(name, 0) if few else n
            if some > 0:
                part = found.changed(lambda value, n=some: value[:n])
                context = torch.enable_grad() if name == "integrated_gradients" else torch.no_grad()
                with context:
                    take(name, len(part.valid), lambda m=method, p=part: one_by_one(m, p))
        batches.append(found)
        print(f"{sum(len(b.valid) for b in batches)} of {len(reads)} reads", flush=True)
    return scores, seconds, n_done, batches


def plain_evidence(model: Explanandum, found: Explained) -> Tensor:
    """Return what each token's final hidden state adds to the explained class's logit, [B, R, T]."""
    return model.evidence(*model.read(found.embedded, found.input_ids), found.targets)


def smoothed(scores: Tensor, valid: Tensor) -> Tensor:
    """Return scores [B, R, T] averaged over neighbours with a Gaussian of `SMOOTHING_TOKENS`, padding left out."""
    place = torch.arange(-3 * SMOOTHING_TOKENS, 3 * SMOOTHING_TOKENS + 1)
    kernel = torch.exp(-0.5 * (place / SMOOTHING_TOKENS) ** 2).view(1, 1, -1)
    kept = valid.float().unsqueeze(1)
    reach = kernel.shape[-1] // 2
    rows = (scores * kept).reshape(-1, 1, scores.shape[2])
    sums = nn.functional.conv1d(rows, kernel, padding=reach).view_as(scores)
    return sums / nn.functional.conv1d(kept, kernel, padding=reach) * kept


def all_relevance(model: Explanandum, found: Explained) -> Tensor:
    """Return AttnLRP's relevance for the explained class of every rank, [B, R, T]."""
    ranks = range(found.targets.shape[1])
    each = [relevance(model, found.embedded, found.input_ids, r, found.targets[:, r]) for r in ranks]
    return torch.stack(each, dim=1)


def explained_as(
    model: Explanandum, explainer: Explainer, batch: LabelledBatch, rank: int, targets: Tensor
) -> Explained:
    """Return a batch explained for these classes of a rank, and for the calls of the others."""
    valid = model.valid(batch.input_ids)
    embedded = model.embed(batch.input_ids)
    seen = PlainPass(batch.input_ids, valid, *model.read(embedded, batch.input_ids))
    plain = model.top_classes(seen.logits)
    asked = plain.clone()
    asked[:, rank] = targets
    logits = explainer.class_logits(model, seen, asked + first_classes(model))
    content = model.content(batch.input_ids)
    return Explained(model, batch.input_ids, valid, content, embedded, plain, asked, logits, batch.words)


def located(
    model: Explanandum, explainer: Explainer, reads: LabelledReads, chimeras: list[Chimeras]
) -> dict[str, list[float]]:
    """Return by method the AUC on chimeras of every rank; methods that take one read at a time get few."""
    rivals = Rivals(model)
    fast: dict[str, Callable[[Explained, int], Tensor]] = {
        "explainer": lambda f, r: f.logits[:, r],
        "mask": lambda f, r: f.logits.amax(dim=1),
        "evidence": lambda f, r: plain_evidence(model, f)[:, r],
        "smoothed_evidence": lambda f, r: smoothed(plain_evidence(model, f), f.valid)[:, r],
        "attn_lrp": lambda f, r: relevance(model, f.embedded, f.input_ids, r, f.targets[:, r]),
    }
    slow: dict[str, Method] = {
        "lime": rivals.lime(50),
        "kernel_shap": rivals.kernel_shap(),
        "ablation": rivals.ablation(),
        "integrated_gradients": rivals.integrated_gradients(),
        "rollout": rivals.rollout,
    }

    def auc(groups: list[Chimeras], scores: Callable[[Explained, int], Tensor]) -> list[float]:
        def scorer(batch: LabelledBatch, rank: int, targets: Tensor) -> Tensor:
            return scores(explained_as(model, explainer, batch, rank, targets), rank)

        found = measure_chimeras(model, reads, groups, scorer, is_mask=False)
        return [round(each["auc"]["mean"], 4) for each in found]

    def one(method: Method) -> Callable[[Explained, int], Tensor]:
        def scores(found: Explained, rank: int) -> Tensor:
            with torch.enable_grad():
                return torch.stack([method(found, i, rank) for i in range(len(found.valid))])

        return scores

    few = [group.first(SLOW_CHIMERAS) for group in chimeras]
    return {name: auc(chimeras, scores) for name, scores in fast.items()} | {
        name: auc(few, one(method)) for name, method in slow.items()
    }


@torch.inference_mode()
def measured(model: Explanandum, batches: list[Explained], scores: list[Tensor]) -> dict[str, list[float]]:
    """Return each measure by rank, over the reads that have scores."""
    parts: dict[str, list[np.ndarray]] = {}
    for found, given in zip(batches, scores, strict=False):
        n = len(given)
        by_rank, regions = [], []
        for r in range(given.shape[1]):
            curves = probability_curves(model, found.embedded[:n], found.input_ids[:n], found.targets[:n], given[:, r])
            by_rank.append(measures(*(curve[:, :, r].double().numpy() for curve in curves)))
            part = found.changed(lambda value, n=n: value[:n])
            opened = best_tokens(given[:, r], part.content, OPEN_SHARE) > 0
            each = region_measures(model, part, given[:, r], opened, np.random.default_rng(0))["regions"]
            regions.append({name: values[:, r].double().numpy() for name, values in each.items()})
        for name in by_rank[0]:
            parts.setdefault(name, []).append(np.stack([m[name] for m in by_rank], axis=1))
        for name in regions[0]:
            parts.setdefault(name, []).append(np.stack([m[name] for m in regions], axis=1))
    return {name: np.nanmean(np.concatenate(values), axis=0).round(4).tolist() for name, values in parts.items()}
