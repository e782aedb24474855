"""Every family of classifiers: as transformers computes it, masked where it should be, whatever is in the batch."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from toy_families import READS, TEXTS, Toy, rows, toy

from wyr_batch.models.explanandum import NORMALISED
from wyr_batch.models.families.dnabert import alibi_slopes

LENGTHS = (9, 3, 20, 12)
TYPED = ["bert", "electra", "deberta-v2"]
COMPARED = [*TEXTS, "llama", "mistral"]  # those that transformers computes too


def scores(found: Toy, ids: torch.Tensor, scaled: torch.Tensor | None = None, pair: bool = False) -> torch.Tensor:
    """Return the labels' scores [B, L] as transformers gives them, its own outputs scaled by a mask [B, T] if given."""
    model, hooks = found.reference, []
    sites = [] if scaled is None else [site(model) for site in (found.site, found.last) if site]
    for site in sites:
        hooks.append(site.register_forward_hook(lambda _module, _args, out: out * scaled.unsqueeze(-1)))
    more = {"token_type_ids": found.model.token_types(ids)} if pair else {}
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=found.model.valid(ids).long(), **more)
    for hook in hooks:
        hook.remove()
    return getattr(out, "logits", out)


def ours(found: Toy, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the labels' scores of our model; of several labels, the logits of yes."""
    with torch.no_grad():
        logits = found.model(ids, mask)
    if not found.model.multi_label:
        return logits
    assert (logits[:, ::2] == 0).all()
    return logits[:, 1::2]


def used(found: Toy, ids: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Return a random mask [B, T] as it is used: 1 at special tokens, 0 at padding."""
    mask = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed))
    return found.model.rank_masks(ids, mask.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("name", COMPARED)
def test_logits_are_those_of_transformers(name: str) -> None:
    found = toy(name)
    ids = rows(found.model, LENGTHS)
    torch.testing.assert_close(ours(found, ids), scores(found, ids), atol=2e-5, rtol=0)
    assert ours(found, ids).std() > 0.1, "rows differ, or nothing is compared"


@pytest.mark.parametrize("name", COMPARED)
def test_a_masked_text_is_the_same_by_hand(name: str) -> None:
    """One row at a time, in transformers' own model, with the output of one module of it scaled."""
    found = toy(name)
    ids = rows(found.model, LENGTHS)
    mask = used(found, ids)
    masked = ours(found, ids, mask)
    for row, length in enumerate(LENGTHS):
        alone = scores(found, ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(masked[row : row + 1], alone, atol=2e-5, rtol=0)
    assert (masked - ours(found, ids)).abs().max() > 0.02


@pytest.mark.parametrize("name", [*TEXTS, *READS])
def test_layers_that_an_export_traces_once_differ_in_weights_alone(name: str) -> None:
    model = toy(name, 3).model
    layers = list(model.layers())
    assert bool(layers) != name.startswith(("deberta", "modernbert")), "whose layers differ in more"
    if not layers:
        return
    calls = []
    hooks = [
        layer.register_forward_hook(lambda *call: calls.append(call), with_kwargs=True)  # module, args, kwargs, output
        for layer in layers
    ]
    ids = rows(model, LENGTHS)
    with torch.no_grad():
        model(ids)
        for hook in hooks:
            hook.remove()
        assert [call[0] for call in calls] == layers
        for layer, args, kwargs, hidden in calls:
            weights = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
            assert torch.equal(torch.func.functional_call(layers[0], weights, args, kwargs), hidden)
            assert hidden.shape == (*ids.shape, hidden.shape[-1])


@pytest.mark.parametrize("name", TYPED)
def test_the_second_text_of_a_pair_has_the_type_that_its_tokenizer_gives(name: str) -> None:
    found = toy(name)
    ids = rows(found.model, (13, 21, 9), pair=True)
    types = found.model.token_types(ids)
    assert types[:, 0].tolist() == [0, 0, 0]
    expected = torch.tensor([int(i >= 7) for i in range(13)])  # [CLS], five words, [SEP], then the second text
    assert torch.equal(types[0, :13], expected)
    torch.testing.assert_close(ours(found, ids), scores(found, ids, pair=True), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", [*TEXTS, *READS])
def test_neither_batch_nor_padding_nor_order_matter(name: str) -> None:
    found = toy(name)
    ids = rows(found.model, LENGTHS)
    mask = used(found, ids)
    together = ours(found, ids, mask)
    backwards = ours(found, ids.flip(0), mask.flip(0)).flip(0)
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)
    wider = torch.nn.functional.pad(ids, (0, 7), value=found.model.pad_id)
    torch.testing.assert_close(
        ours(found, wider, torch.nn.functional.pad(mask, (0, 7), value=0.3)), together, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", [*TEXTS, *READS])
def test_masks_of_ones_and_zeros(name: str) -> None:
    """Ones change nothing. Under zeros no token but the special ones can be told from any other."""
    found = toy(name)
    model = found.model
    ids = rows(model, LENGTHS)
    torch.testing.assert_close(ours(found, ids, torch.ones(ids.shape)), ours(found, ids), atol=1e-5, rtol=0)
    other = torch.where(model.content(ids), rows(model, LENGTHS, seed=5), ids)
    nothing = model.complement(ids, torch.ones(ids.shape))
    assert (ours(found, other) - ours(found, ids)).abs().max() > 0.05
    torch.testing.assert_close(ours(found, other, nothing), ours(found, ids, nothing), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*TEXTS, *READS])
def test_special_tokens_have_a_mask_of_one(name: str) -> None:
    model = toy(name).model
    ids = rows(model, LENGTHS, pair=True)
    masks = model.rank_masks(ids, torch.zeros(len(LENGTHS), 2, max(LENGTHS)))
    special = torch.isin(ids, torch.tensor(model.tokenizer.special_ids))
    assert torch.equal(masks, special.unsqueeze(1).expand_as(masks).float())
    assert special.any()


@pytest.mark.parametrize(("name", "site"), [("modernbert", NORMALISED), ("deberta-v3", NORMALISED)])
def test_what_is_normalised_first_is_masked_after_that(name: str, site: str) -> None:
    assert toy(name).model.mask_site == site
    assert toy("deberta-v2").model.mask_site != site


def test_head_rows_are_the_head_where_it_is_linear() -> None:
    """Of several labels, the row of yes; the product of a head's matrices where there are several."""
    model = toy("llama").model
    pooled = torch.randn(2, model.hidden_size, generator=torch.Generator().manual_seed(0))
    for rank, classes in enumerate(model.slices):
        change = model.logits(pooled)[:, classes] - model.logits(torch.zeros_like(pooled))[:, classes]
        torch.testing.assert_close(change, pooled @ model.head_rows(rank).T, atol=1e-5, rtol=0)
    found = toy("bert-multi")
    head = found.reference
    product = head.classifier.weight @ head.bert.pooler.dense.weight
    torch.testing.assert_close(found.model.head_rows(2), torch.stack((torch.zeros(32), product[2])))


def numpy_dnabert(found: Toy, ids: list[int], mask: np.ndarray) -> np.ndarray:
    """Return the logits of one unpadded read, written from the papers' formulas in float64."""
    tensors = {name: value.double().numpy() for name, value in found.model.state_dict().items()}

    def get(name: str) -> np.ndarray:
        return tensors[f"base_model.{name}"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return scaled * get(f"{name}.weight") + get(f"{name}.bias")

    x = get("embeddings.word_embeddings.weight")[ids] * mask[:, None]
    x = norm(x + get("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    n_heads, size, n = 3, 12, len(ids)
    slopes = [2.0**-4, 2.0**-8, 2.0**-2]  # of two heads, then the first of four
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        packed = x @ get(f"{at}.attention.self.Wqkv.weight").T + get(f"{at}.attention.self.Wqkv.bias")
        mixed = np.zeros_like(x)
        for head in range(n_heads):
            q, k, v = (packed[:, 36 * part + size * head : 36 * part + size * (head + 1)] for part in range(3))
            scores = q @ k.T / math.sqrt(size)
            scores -= slopes[head] * np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, size * head : size * (head + 1)] = weights / weights.sum(axis=1, keepdims=True) @ v
        out = mixed @ get(f"{at}.attention.output.dense.weight").T + get(f"{at}.attention.output.dense.bias")
        x = norm(x + out, f"{at}.attention.output.LayerNorm")
        both = x @ get(f"{at}.mlp.gated_layers.weight").T
        gate, up = both[:, :48], both[:, 48:]
        gelu = gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
        x = norm(x + (gelu * up) @ get(f"{at}.mlp.wo.weight").T + get(f"{at}.mlp.wo.bias"), f"{at}.mlp.layernorm")
    mean = (x * mask[:, None]).sum(axis=0) / n
    heads = [(tensors[f"classifiers.{i}.weight"], tensors[f"classifiers.{i}.bias"]) for i in range(2)]
    return np.concatenate([weight @ mean + bias for weight, bias in heads])


def test_dnabert_is_what_its_formulas_say() -> None:
    found = toy("dnabert")
    ids = rows(found.model, LENGTHS)
    for mask in (found.model.valid(ids).float(), used(found, ids)):
        logits = ours(found, ids, mask).numpy()
        for row, length in enumerate(LENGTHS):
            alone = numpy_dnabert(found, ids[row, :length].tolist(), mask[row, :length].double().numpy())
            np.testing.assert_allclose(logits[row], alone, atol=2e-5)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 8, 12, 16])
def test_slopes_are_those_of_the_paper(n_heads: int) -> None:
    """Powers of two: a geometric series that starts at its own ratio; others take every other one of the next."""
    slopes = alibi_slopes(n_heads)
    assert len(slopes) == len(set(slopes)) == n_heads
    power = 2 ** int(math.log2(n_heads))
    assert slopes[:power] == pytest.approx([2 ** (-8 / power * (i + 1)) for i in range(power)])
    assert slopes[power:] == pytest.approx([2 ** (-8 / (2 * power) * (2 * i + 1)) for i in range(n_heads - power)])


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "modernbert-mean", "esm", "dnabert", "mistral"])
def test_half_precision_is_close(name: str) -> None:
    found = toy(name)
    halved = copy.deepcopy(found.model)
    halved.halve(torch.bfloat16)
    ids = rows(found.model, LENGTHS)
    with torch.no_grad():
        logits = halved(ids, used(found, ids))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, found.model(ids, used(found, ids)), atol=0.1, rtol=0)
    assert any(p.dtype == torch.bfloat16 for p in halved.parameters())
