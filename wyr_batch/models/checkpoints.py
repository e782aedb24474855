"""Explanandum and Explainer checkpoints: read strictly and safely, written in the published layout.

    explanandum/  base_model/config.json, vocab.txt, ...     sizes of the encoder, the tokenizer
                  data_processor/metadata.json               {"sequence_column", "labels": ranks in head order}
                  data_processor/labels.json                 {"ranks": [{"name", "labels"}]}, written by this project
                  data_processor/data_processor.pkl          the same, written by the published training code
                  model/model.safetensors                    base_model.esm..., classifiers.{i}.weight|bias
                  wyr.json                                    pooling and training provenance, optional
    explainer/    config.json, model.safetensors

No remote code is executed, a pickle may only build numpy arrays, and no name in a file leads out of its folder.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wyr_batch.bundle import stays_inside
from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, is_folder, shown_path, write_whole
from wyr_batch.errors import MissingExtraError, ModelError
from wyr_batch.models.encoder import Encoder, EncoderConfig
from wyr_batch.models.explainer import KINDS, Explainer
from wyr_batch.models.explanandum import POOLINGS, Explanandum
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.lstm import LstmConfig, LstmExplainer
from wyr_batch.models.readout import ReadoutConfig, ReadoutExplainer
from wyr_batch.models.tensorfile import read_tensors, write_tensors
from wyr_batch.ranks import Rank, check_ranks, ranks_from_json, ranks_to_json
from wyr_batch.tokens.kmers import vocabulary

# Tensors of a published file that an encoder classifier does not use.
UNUSED_KEYS = ("base_model.lm_head.", "base_model.esm.contact_head.", "base_model.esm.embeddings.position_embeddings.")

_UNUSED = "norm.num_batches_tracked"
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


def load_explanandum(folder: Path) -> tuple[Explanandum, list[Rank]]:
    """Load a classifier checkpoint, every tensor accounted for.

    Returns: the model in float32 and evaluation mode, and its ranks.
    Raises: ModelError naming the tensor that is missing, unknown or of another shape.
    """
    config = EncoderConfig.from_json(folder / "base_model" / "config.json")
    ranks = read_ranks(folder)
    made, pooling = folder / "wyr.json", "mean"
    if exists(made, ModelError):
        pooling = Fields.read(made, ModelError, _ADVICE).text("pooling", "mean", one_of=POOLINGS)
    model = NtExplanandum(config, [len(rank.labels) for rank in ranks], pooling)
    path = folder / "model" / "model.safetensors"
    tensors = {k: v.float() for k, v in read_tensors(path).items() if not k.startswith(UNUSED_KEYS)}
    _load_strictly(model, tensors, path)
    return model.eval(), ranks


def load_encoder(source: str) -> Encoder:
    """Load a bare NT v2 encoder to start a training from; what is not the encoder's is left out.

    Args:
        source: directory with config.json and model.safetensors (one file or sharded with an index) or
            pytorch_model.bin; a classifier checkpoint of this layout; or the id of a model on the Hugging Face Hub,
            which is downloaded. Only tensors are read: no code of the model's is ever executed.
    Raises: ModelError naming the file or tensor.
    """
    folder = Path(source)
    if not is_folder(folder, ModelError):
        folder = _from_hub(source)
    if exists(folder / "model" / "model.safetensors", ModelError):
        return _of_nt(load_explanandum(folder)[0]).encoder
    encoder = Encoder(EncoderConfig.from_json(folder / "config.json"))
    path, tensors = _bare_tensors(folder)
    prefix = "base_model." if any(key.startswith("esm.") for key in tensors) else "base_model.esm."
    full = {f"{prefix}{key}": value.float() for key, value in tensors.items()}
    kept = {k.removeprefix("base_model.esm."): v for k, v in full.items() if not k.startswith(UNUSED_KEYS)}
    _load_strictly(encoder, kept, path)
    return encoder


def _of_nt(model: Explanandum) -> NtExplanandum:
    """Return the model if it is of the family NT v2. Raises: ModelError."""
    if not isinstance(model, NtExplanandum):
        raise ModelError("explanandum", f"the family {model.family}", NtExplanandum.family)
    return model


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError(f"model {name}", "huggingface_hub", "train") from None
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors*", "pytorch_model.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ModelError(name, f"'{first}'", "a directory or a model on the Hugging Face Hub") from None


def _bare_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the file that holds a bare model's tensors, or the index of several, and the tensors."""
    whole, index, old = (
        folder / name for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    )
    if exists(whole, ModelError):
        return whole, read_tensors(whole)
    if exists(index, ModelError):
        places = Fields.read(index, ModelError, "Do not trust this model, or get it again.").object("weight_map")
        for key in places.content:
            if not stays_inside(places.text(key)):
                raise places.wrong(key, "the name of a file in the same folder")
        names = sorted(set(places.content.values()))
        return index, {k: v for name in names for k, v in read_tensors(folder / name).items()}
    if not exists(old, ModelError):
        raise ModelError(folder, f"neither {whole.name} nor {old.name}", "one of them beside config.json")
    try:
        tensors: dict[str, Tensor] = torch.load(old, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(
            old, f"'{str(error).strip().splitlines()[0]}'", "tensors and nothing else", "Do not trust it."
        ) from None
    return old, tensors


def load_explainer(folder: Path) -> Explainer:
    """Load an Explainer checkpoint in float32 and evaluation mode. Raises: ModelError."""
    config, path = folder / "config.json", folder / "model.safetensors"
    kind = Fields.read(config, ModelError, "Name the folder of an Explainer.").text("kind", "lstm", one_of=KINDS)
    explainer: Explainer
    if kind == "readout":
        explainer = ReadoutExplainer(ReadoutConfig.from_json(config))
    else:
        explainer = LstmExplainer(LstmConfig.from_json(config))
    tensors = {k: v.float() for k, v in read_tensors(path).items()}
    # torch counts batches here; nothing reads it, and the layout does not hold it.
    tensors |= {k: v for k, v in explainer.state_dict().items() if k == _UNUSED}
    _load_strictly(explainer, tensors, path)
    return explainer.eval()


def _load_strictly(model: Explanandum | Explainer | Encoder, tensors: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    for key in sorted(set(expected) | set(tensors)):
        if key not in tensors:
            raise ModelError(f"{path}, tensor {key}", "nothing", f"shape {tuple(expected[key].shape)}")
        if key not in expected:
            raise ModelError(f"{path}, tensor {key}", "a tensor of that name", "none", "Is it another model?")
        if tensors[key].shape != expected[key].shape:
            raise ModelError(f"{path}, tensor {key}", f"shape {tuple(tensors[key].shape)}", tuple(expected[key].shape))
    model.load_state_dict(tensors)


def save_explanandum(
    model: Explanandum, ranks: Sequence[Rank], folder: Path, provenance: Mapping[str, Any], half: bool = False
) -> None:
    """Write a classifier checkpoint in the published layout; `half` stores float16."""
    for name in ("base_model", "data_processor", "model"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_whole(folder / "base_model" / "config.json", _of_nt(model).config.to_json())
    write_whole(folder / "base_model" / "vocab.txt", "\n".join(vocabulary()))
    _write_json(folder / "base_model" / "tokenizer_config.json", _TOKENIZER_CONFIG)
    _write_json(folder / "data_processor" / "labels.json", {"ranks": ranks_to_json(ranks)})
    metadata = {"sequence_column": "sequence", "labels": [rank.name for rank in ranks]}
    _write_json(folder / "data_processor" / "metadata.json", metadata)
    _write_json(folder / "wyr.json", {"pooling": model.pooling, **provenance})
    _save_tensors(model.state_dict(), folder / "model" / "model.safetensors", half)


def save_explainer(model: Explainer, folder: Path, provenance: Mapping[str, Any], half: bool = False) -> None:
    """Write an Explainer checkpoint; `half` stores float16."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.json", model.config.to_json())
    _write_json(folder / "wyr.json", provenance)
    tensors = {k: v for k, v in model.state_dict().items() if k != _UNUSED}
    _save_tensors(tensors, folder / "model.safetensors", half)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path, half: bool) -> None:
    # inv_freq stays float32: it multiplies positions up to the thousands.
    small = {k: v.half() if half and not k.endswith("inv_freq") else v for k, v in tensors.items()}
    write_tensors(small, path)


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")
