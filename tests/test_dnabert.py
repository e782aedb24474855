"""DNABERT's encoder, layer by layer against transformers' BERT where the two agree.

They differ in ALiBi, which is switched off here by slopes of 0, and in the feed-forward's gate. Every layer norm here
gives 1 as its last feature: so a gated layer can hold BERT's bias, and a second half that is 1 throughout.
"""

from __future__ import annotations

import pytest
import torch

from wyr_batch.models.families.dnabert import DnabertConfig, DnabertEncoder

SIZES = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
VOCAB, MOST_TOKENS, LENGTHS = 40, 32, (20, 7, 1)


def bert() -> torch.nn.Module:
    """Return a random BERT without positions, whose layer norms end in a 1."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        max_position_embeddings=MOST_TOKENS,
        layer_norm_eps=1e-12,
        attn_implementation="eager",
        **SIZES,
    )
    model: torch.nn.Module = transformers.BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        model.embeddings.position_embeddings.weight.zero_()
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight[-1], module.bias[-1] = 0, 1
    return model


def as_dnabert(model: torch.nn.Module) -> DnabertEncoder:
    """Return the same layers as DNABERT's."""
    encoder = DnabertEncoder(DnabertConfig(vocab_size=VOCAB, max_position_embeddings=MOST_TOKENS, **SIZES)).eval()
    given = model.state_dict()
    state = {f"embeddings.{name}": given[f"embeddings.{name}"] for name in encoder.embeddings.state_dict()}
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for kind in ("weight", "bias"):
            parts = [given[f"{at}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{at}.attention.self.Wqkv.{kind}"] = torch.cat(parts)
            for name in ("attention.output.dense", "attention.output.LayerNorm"):
                state[f"{at}.{name}.{kind}"] = given[f"{at}.{name}.{kind}"]
            state[f"{at}.mlp.wo.{kind}"] = given[f"{at}.output.dense.{kind}"]
            state[f"{at}.mlp.layernorm.{kind}"] = given[f"{at}.output.LayerNorm.{kind}"]
        gate, up = given[f"{at}.intermediate.dense.weight"].clone(), torch.zeros(SIZES["intermediate_size"], 36)
        gate[:, -1] += given[f"{at}.intermediate.dense.bias"]
        up[:, -1] = 1
        state[f"{at}.mlp.gated_layers.weight"] = torch.cat((gate, up))
    encoder.load_state_dict(state)
    encoder.slopes.zero_()
    return encoder


@pytest.mark.parametrize("explicit", [True, False], ids=["attention written out", "attention of torch"])
def test_each_layer_is_that_of_bert(explicit: bool) -> None:
    reference = bert()
    encoder = as_dnabert(reference)
    encoder.explicit_attention = explicit
    ids = torch.randint(1, VOCAB, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    found: list[torch.Tensor] = []
    for layer in encoder.encoder.layer:
        layer.mlp.register_forward_hook(lambda _module, _args, out: found.append(out))
    with torch.no_grad():
        wanted = reference(input_ids=ids, attention_mask=valid.long(), output_hidden_states=True).hidden_states
        encoder.encode(encoder.embeddings.word_embeddings(ids), valid)
    assert len(found) == len(wanted) - 1 == SIZES["num_hidden_layers"]
    for ours, theirs in zip(found, wanted[1:], strict=True):
        torch.testing.assert_close(ours[valid], theirs[valid], atol=2e-5, rtol=0)
        assert theirs[valid].std() > 0.1
