"""Classifiers as transformers saves them: config.json, model.safetensors, the tokenizer's files.

    config.json            model_type and architectures say which class; id2label names its labels
    model.safetensors      or several with model.safetensors.index.json
    tokenizer.json, ...    whatever transformers' AutoTokenizer needs
    wyr.json               training provenance, written by this project

No remote code is executed: a model that needs code of its own is refused by name, as are pickled weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import shown_path, write_whole
from wyr_batch.errors import MissingExtraError, ModelError
from wyr_batch.models.encoder import MOST_LAYERS, MOST_WIDTH
from wyr_batch.models.families.esm2 import Esm2Explanandum
from wyr_batch.models.families.normalised import DebertaExplanandum, ModernBertExplanandum
from wyr_batch.models.families.quiet import quiet_transformers, reason_given
from wyr_batch.models.families.text import (
    MULTI_LABEL,
    BertExplanandum,
    DistilBertExplanandum,
    ElectraExplanandum,
    RobertaExplanandum,
    TextExplanandum,
    XlmRobertaExplanandum,
)
from wyr_batch.models.families.tokenizer import check_vocabulary, describe_tokenizer
from wyr_batch.models.layouts.labels import label_ranks
from wyr_batch.models.layouts.tensors import folder_tensors, load_strictly, save_tensors, write_json
from wyr_batch.ranks import Rank, check_ranks

FAMILIES: Mapping[str, type[TextExplanandum]] = {
    family.family: family
    for family in (
        BertExplanandum,
        RobertaExplanandum,
        XlmRobertaExplanandum,
        DistilBertExplanandum,
        ElectraExplanandum,
        DebertaExplanandum,
        ModernBertExplanandum,
        Esm2Explanandum,
    )
}

# Tensors that files have beside a classifier's: of other heads, of older versions, and what is counted, not learned.
_UNUSED = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|inv_freq)"
    r"|(cls|lm_head|lm_predictions|mask_predictions|discriminator_predictions|generator_\w+)\..*"
    r"|(vocab_transform|vocab_layer_norm|vocab_projector|decoder|decoder_bias)(\..*)?"
    r"|(roberta|electra|esm|deberta)\.pooler\..*"
    r"|esm\.contact_head\..*"
    r"|(esm|deberta)\.embeddings\.position_embeddings\.weight"
)
_ADVICE = "Name the folder of a classifier that transformers has saved."


def load_pretrained(folder: Path) -> tuple[TextExplanandum, list[Rank]]:
    """Load a classifier of transformers in float32 and evaluation mode, and its ranks. Raises: ModelError."""
    path = folder / "config.json"
    fields = Fields.read(path, ModelError, _ADVICE)
    kind = _family(fields)
    config = _config(fields)
    _check_variant(fields, config, shown_path(path))
    ranks = label_ranks(config)
    check_ranks(ranks, shown_path(path))
    tokenizer = describe_tokenizer(folder, config.pad_token_id)
    check_vocabulary(tokenizer, config.vocab_size, folder)
    file, tensors = folder_tensors(folder, pickled=False)
    try:
        import transformers
        from transformers.initialization import no_init_weights

        with quiet_transformers(), no_init_weights():
            model = getattr(transformers, kind.class_name)(config)
    except ImportError:
        raise MissingExtraError(f"the classifier {shown_path(folder)}", "transformers", "train") from None
    except Exception as error:  # what transformers makes of sizes that do not fit together
        raise _unusable(shown_path(path), error) from None
    explanandum = kind(model, tokenizer)
    load_strictly(explanandum, _renamed(explanandum, tensors), file, prefix="model.")
    explanandum.write_out_attention(False)
    return explanandum.eval(), ranks


def _family(fields: Fields) -> type[TextExplanandum]:
    """Return the class of a config.json's family. Raises: ModelError for one that is not among them."""
    model_type = fields.text("model_type")
    if "auto_map" in fields:
        raise ModelError(
            fields.where,
            f"auto_map, code of the model's own, of the type {model_type!r}",
            f"a model that transformers computes: {', '.join(FAMILIES)}",
            "Code that comes with a model is never executed.",
        )
    if model_type not in FAMILIES:
        raise ModelError(fields.where, f"model_type {model_type!r}", f"one of {', '.join(FAMILIES)}")
    kind = FAMILIES[model_type]
    architectures = fields.texts("architectures", [])
    if kind.class_name not in architectures:
        got = f"architectures {', '.join(architectures) or 'none'}"
        raise ModelError(fields.where, got, kind.class_name, "A model without a trained classifier calls nothing.")
    return kind


def _config(fields: Fields) -> Any:
    """Return transformers' configuration. Raises: ModelError, MissingExtraError."""
    fields.whole("vocab_size", least=1, most=MOST_WIDTH)
    for name in ("num_hidden_layers", "n_layers"):
        fields.whole(name, 1, least=1, most=MOST_LAYERS)
    for name in ("hidden_size", "dim", "intermediate_size", "hidden_dim", "max_position_embeddings"):
        fields.whole(name, 1, least=1, most=MOST_WIDTH)
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        raise MissingExtraError(f"the classifier {fields.where}", "transformers", "train") from None
    try:
        with quiet_transformers():
            config = CONFIG_MAPPING[fields.text("model_type")].from_dict(dict(fields.content))
    except Exception as error:  # what transformers makes of values that no model has
        raise _unusable(fields.where, error) from None
    # How to answer, which is ours to say; no number depends on it.
    config.update({"output_hidden_states": False, "output_attentions": False, "return_dict": True})
    config.chunk_size_feed_forward = 0
    return config


def _check_variant(fields: Fields, config: Any, where: str) -> None:
    """Raise ModelError for a variant that is not computed, or has no classes."""
    position = "rotary" if config.model_type == "esm" else "absolute"
    refused = {
        "position_embedding_type": fields.content.get("position_embedding_type", position) != position,
        "emb_layer_norm_before": config.model_type == "esm" and bool(config.emb_layer_norm_before),
        "is_folding_model": bool(fields.content.get("is_folding_model")),
        "is_decoder": bool(fields.content.get("is_decoder")),
    }
    for name, is_refused in refused.items():
        if is_refused:
            got = f"{name} {fields.content[name]!r}"
            raise ModelError(where, got, f"an encoder of the type {config.model_type!r} as it was published")
    if config.model_type == "esm" and "position_embedding_type" not in fields:
        raise ModelError(where, "absolute positions", "position_embedding_type 'rotary', as in ESM-2")
    for rope in _ropes(config):
        if rope in ("dynamic", "longrope"):
            got = f"rotary positions of the type {rope!r}"
            raise ModelError(where, got, "ones that do not depend on the longest row of a batch")
    if (config.num_labels < 2 and config.problem_type != MULTI_LABEL) or config.problem_type == "regression":
        raise ModelError(
            where,
            f"{config.num_labels} label{'s' * (config.num_labels != 1)}, problem_type {config.problem_type!r}",
            "two classes or more",
            "A model that gives one number (a regression) has no class whose mask could be asked for.",
        )


def _ropes(config: Any) -> list[str]:
    found = getattr(config, "rope_parameters", None) or {}
    several = found.values() if all(isinstance(value, dict) for value in found.values()) else [found]
    return [str(value.get("rope_type", "default")) for value in several]


def _unusable(where: str, error: Exception) -> ModelError:
    return ModelError(where, f"'{reason_given(error)}'", "a configuration that transformers takes", _ADVICE)


def _renamed(model: TextExplanandum, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 tensors under the names of today's transformers, without those of other uses."""
    expected = {key.removeprefix("model.") for key in model.state_dict()}
    named = {re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", key): value for key, value in tensors.items()}
    named = {re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", key): value for key, value in named.items()}
    kept = {k: v.float() for k, v in named.items() if k in expected or not _UNUSED.fullmatch(k)}
    for key in expected - kept.keys():
        if key.endswith("rotary_embeddings.inv_freq"):  # once one a layer, all alike
            of_layers = sorted(name for name in named if name.endswith("rotary_embeddings.inv_freq"))
            kept[key] = named[of_layers[0]].float() if of_layers else model.state_dict()[f"model.{key}"]
    return kept


def save_pretrained(
    model: TextExplanandum, ranks: Sequence[Rank], folder: Path, provenance: Mapping[str, Any], half: bool = False
) -> None:
    """Write a classifier so that `load_pretrained`, and transformers too, loads it; `half` stores float16."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.model.config.to_dict() | {"architectures": [model.class_name]}
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)
    for name, content in model.tokenizer.files.items():
        write_whole(folder / name, content)
    write_json(folder / "wyr.json", {"pooling": model.pooling, **provenance})
    tensors = {key.removeprefix("model."): value for key, value in model.state_dict().items()}
    save_tensors(tensors, folder / "model.safetensors", half)
