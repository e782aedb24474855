"""METAGENE-1 and GenomeOcean: language models of reads (Llama, Mistral) with a mean over tokens and linear heads.

transformers' own modules compute, on embeddings and a float mask: a token sees itself, those before it, and of a
Mistral with a sliding window only the nearest of those. Padding is on the right, where no token sees it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.checks.fields import Fields
from wyr_batch.errors import MissingExtraError, ModelError
from wyr_batch.models.encoder import MOST_LAYERS, MOST_WIDTH, PADDING_SCORE, padding_bias
from wyr_batch.models.families.heads import LinearHeads
from wyr_batch.models.families.quiet import quiet_transformers, reason_given
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.models.families.tokenizer import TokenizerInfo
from wyr_batch.models.precision import halve_linears

_CLASSES = {"llama": "LlamaModel", "mistral": "MistralModel"}


class _WithHead(nn.Module):
    """Holds the decoder under the name `model`, as a language model with its head does."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.model = decoder


class CausalExplanandum(Tokenised, LinearHeads):
    """A Llama or Mistral decoder, one pooled vector a read, one linear head a rank."""

    base_model: Any

    def __init__(self, config: Any, n_classes: Sequence[int], tokenizer: TokenizerInfo, pooling: str = "mean") -> None:
        """
        Args:
            config: transformers' LlamaConfig or MistralConfig.
        """
        super().__init__(n_classes, pooling)
        import transformers
        from transformers.initialization import no_init_weights

        self.family = config.model_type  # type: ignore[misc]
        self.config = config
        self.vocab_size, self.max_tokens = config.vocab_size, config.max_position_embeddings
        self.use_tokenizer(tokenizer)
        with quiet_transformers(), no_init_weights():
            decoder = getattr(transformers, _CLASSES[self.family])(config)
        # As published: METAGENE-1 was loaded as a bare model, GenomeOcean as one with its language-model head.
        self.base_model = _WithHead(decoder) if self.family == "mistral" else decoder
        self.add_heads(config.hidden_size, n_classes)

    @property
    def decoder(self) -> Any:
        return self.base_model.model if self.family == "mistral" else self.base_model

    @staticmethod
    def read_config(fields: Fields) -> Any:
        """Return transformers' configuration of a published config.json. Raises: ModelError, MissingExtraError."""
        fields.whole("vocab_size", least=1, most=MOST_WIDTH)
        fields.whole("num_hidden_layers", least=1, most=MOST_LAYERS)
        fields.whole("num_attention_heads", least=1, most=MOST_WIDTH)
        for name in ("hidden_size", "intermediate_size", "max_position_embeddings"):
            fields.whole(name, least=1, most=MOST_WIDTH)
        try:
            from transformers import CONFIG_MAPPING
        except ImportError:
            raise MissingExtraError(f"the classifier {fields.where}", "transformers", "train") from None
        content = {
            key: value for key, value in fields.content.items() if key not in ("auto_map", "quantization_config")
        }
        try:
            with quiet_transformers():
                config = CONFIG_MAPPING[fields.text("model_type")].from_dict(content)
            if config.hidden_size % config.num_attention_heads:
                raise ValueError(f"hidden_size {config.hidden_size} with {config.num_attention_heads} heads")
            rope = config.rope_parameters["rope_type"]
        except Exception as error:  # what transformers makes of values that no model has
            raise ModelError(
                fields.where, f"'{reason_given(error)}'", "a configuration that transformers takes"
            ) from None
        if rope in ("dynamic", "longrope"):
            got = f"rotary positions of the type {rope!r}"
            raise ModelError(fields.where, got, "ones that do not depend on the longest row of a batch")
        config.update({"output_hidden_states": False, "output_attentions": False, "use_cache": False})
        return config

    def config_json(self) -> str:
        return json.dumps(self.config.to_dict(), indent=2) + "\n"

    def embed(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.decoder.embed_tokens(input_ids)
        return embedded * self.valid(input_ids).unsqueeze(-1).to(embedded.dtype)

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        places = self.positions(input_ids)
        before = places.transpose(0, 1) - places  # [T, T], by how much a token comes after another
        seen = before >= 0
        if self.family == "mistral" and self.config.sliding_window is not None:
            seen = seen & (before < self.config.sliding_window)
        hidden: Tensor = self.decoder(
            inputs_embeds=embedded,
            attention_mask=torch.where(seen, 0.0, PADDING_SCORE).to(embedded.dtype)
            + padding_bias(self.valid(input_ids), embedded.dtype),
            position_ids=places,
            use_cache=False,
        )[0]
        return hidden

    def layers(self) -> Sequence[nn.Module]:
        return list(self.decoder.layers)

    def halve(self, dtype: torch.dtype) -> None:
        halve_linears(self.decoder, dtype)

    def write_out_attention(self, on: bool = True) -> None:
        self.decoder.set_attn_implementation("eager" if on else "sdpa")
