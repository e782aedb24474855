"""Classifiers of reads as the published training code lays them out.

    base_model/config.json, tokenizer files    sizes of the encoder; model_type says which family
    data_processor/metadata.json               {"sequence_column", "labels": ranks in head order}
    data_processor/labels.json                 {"ranks": [{"name", "labels"}]}, written by this project
    data_processor/data_processor.pkl          the same, written by the published training code
    model/model.safetensors                    base_model..., classifiers.{i}.weight|bias
    wyr.json                                   pooling and training provenance, optional

No remote code is executed, and a pickle may only build numpy arrays.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, shown_path, write_whole
from wyr_batch.errors import ModelError
from wyr_batch.models.encoder import EncoderConfig
from wyr_batch.models.explanandum import POOLINGS, Explanandum
from wyr_batch.models.families.causal import CausalExplanandum
from wyr_batch.models.families.dnabert import DnabertConfig, DnabertExplanandum
from wyr_batch.models.families.heads import LinearHeads
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.models.families.tokenizer import check_vocabulary, describe_tokenizer
from wyr_batch.models.layouts.tensors import load_strictly, save_tensors, write_json
from wyr_batch.models.tensorfile import read_tensors
from wyr_batch.ranks import Rank, check_ranks, ranks_from_json, ranks_to_json
from wyr_batch.tokens.kmers import vocabulary

# Tensors of a published file that a classifier does not use, by the type of its encoder.
UNUSED_KEYS = {
    "esm": ("base_model.lm_head.", "base_model.esm.contact_head.", "base_model.esm.embeddings.position_embeddings."),
    "bert": ("base_model.pooler.",),
    "llama": ("base_model.lm_head.",),
    "mistral": ("base_model.lm_head.",),
}
NT_TYPE = "esm"

_ADVICE = "Get the checkpoint again, or mend the file."
_TOKENIZER_CONFIG = {"tokenizer_class": "EsmTokenizer", "model_max_length": 2048, "eos_token": None}

_ARRAY_GLOBALS = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_GLOBALS:
            raise ModelError(
                "data_processor.pkl",
                f"a pickle that asks for {module}.{name}",
                "numpy arrays only",
                "Do not trust this file; write data_processor/labels.json by hand instead.",
            )
        if name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        return getattr(np, name)


def read_ranks(folder: Path) -> list[Rank]:
    """Return the ranks of an Explanandum checkpoint, in head order.

    `labels.json` wins over the pickle; the pickle's classes are looked up by the names in metadata.json.
    Raises: ModelError.
    """
    processor = folder / "data_processor"
    labels = processor / "labels.json"
    if exists(labels, ModelError):
        ranks = ranks_from_json(Fields.read(labels, ModelError, _ADVICE).objects("ranks"))
    else:
        names = Fields.read(processor / "metadata.json", ModelError, _ADVICE).texts("labels")
        ranks = _pickled_ranks(processor / "data_processor.pkl", names)
    check_ranks(ranks, shown_path(folder))
    return ranks


def _pickled_ranks(path: Path, names: Sequence[str]) -> list[Rank]:
    """Return the ranks of those names from pickled label encoders. Raises: ModelError."""
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
        encoders = content["encoders"] if isinstance(content, Mapping) else content[0]
        if not isinstance(encoders, Mapping):
            fitted = content["labels"] if isinstance(content, Mapping) else content[1]
            encoders = dict(zip(fitted, encoders, strict=True))
        if missing := [name for name in names if name not in encoders]:
            held = ", ".join(map(str, encoders))
            raise ModelError(shown_path(path), f"label encoders for {held}", f"{missing[0]} too")
        if odd := [name for name in names if not isinstance(encoders[name], list) and np.ndim(encoders[name]) != 1]:
            raise TypeError(f"no list of labels for {odd[0]}")
        return [Rank(name, tuple(map(str, encoders[name]))) for name in names]
    except ModelError:
        raise
    except Exception as error:  # what a damaged pickle, or one of another shape, ends in may be any of them
        raise ModelError(
            shown_path(path),
            f"'{type(error).__name__}: {error}'",
            "the label encoders of the training run",
            "Write labels.json beside it by hand instead.",
        ) from None


def load_published(folder: Path) -> tuple[Explanandum, list[Rank]]:
    """Load a classifier in float32 and evaluation mode, every tensor accounted for, and its ranks.

    Raises: ModelError naming the tensor that is missing, unknown or of another shape, or a family that is not computed.
    """
    base = folder / "base_model"
    path = base / "config.json"
    fields = Fields.read(path, ModelError, "Name the folder of a classifier.")
    model_type = fields.text("model_type", NT_TYPE)
    if model_type == "hyenadna":
        raise ModelError(
            shown_path(path),
            "a HyenaDNA model",
            f"one of {', '.join(UNUSED_KEYS)}",
            "Its convolutions run over the whole row and take no mask of padding, so a read's calls depend on the "
            "reads beside it.",
        )
    if model_type not in UNUSED_KEYS:
        raise ModelError(shown_path(path), f"model_type {model_type!r}", f"one of {', '.join(UNUSED_KEYS)}")
    model = _empty(model_type, fields, folder)
    file = folder / "model" / "model.safetensors"
    tensors = {k: v.float() for k, v in read_tensors(file).items() if not k.startswith(UNUSED_KEYS[model_type])}
    load_strictly(model, tensors, file)
    model.write_out_attention(False)
    return model.eval(), read_ranks(folder)


def _empty(model_type: str, fields: Fields, folder: Path) -> LinearHeads:
    """Return a classifier before its tensors are loaded. Raises: ModelError."""
    path = folder / "base_model" / "config.json"
    config: Any
    if model_type == NT_TYPE:
        config = EncoderConfig.from_json(path)
    elif model_type == "bert":
        config = DnabertConfig.from_json(path)
    else:
        config = CausalExplanandum.read_config(fields)
    n_classes = [len(rank.labels) for rank in read_ranks(folder)]
    made, pooling = folder / "wyr.json", "mean"
    if exists(made, ModelError):
        pooling = Fields.read(made, ModelError, _ADVICE).text("pooling", "mean", one_of=POOLINGS)
    if model_type == NT_TYPE:
        return NtExplanandum(config, n_classes, pooling)
    tokenizer = describe_tokenizer(path.parent, config.pad_token_id)
    check_vocabulary(tokenizer, config.vocab_size, path.parent)
    if model_type == "bert":
        return DnabertExplanandum(config, n_classes, tokenizer, pooling)
    return CausalExplanandum(config, n_classes, tokenizer, pooling)


def save_published(
    model: LinearHeads, ranks: Sequence[Rank], folder: Path, provenance: Mapping[str, Any], half: bool = False
) -> None:
    """Write a classifier so that `load_published` loads it; `half` stores float16."""
    for name in ("base_model", "data_processor", "model"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    base = folder / "base_model"
    write_whole(base / "config.json", model.config_json())
    if isinstance(model, Tokenised):
        for name, content in model.tokenizer.files.items():
            write_whole(base / name, content)
    else:
        write_whole(base / "vocab.txt", "\n".join(vocabulary()))
        write_json(base / "tokenizer_config.json", _TOKENIZER_CONFIG)
    write_json(folder / "data_processor" / "labels.json", {"ranks": ranks_to_json(ranks)})
    metadata = {"sequence_column": "sequence", "labels": [rank.name for rank in ranks]}
    write_json(folder / "data_processor" / "metadata.json", metadata)
    write_json(folder / "wyr.json", {"pooling": model.pooling, **provenance})
    save_tensors(model.state_dict(), folder / "model" / "model.safetensors", half)
