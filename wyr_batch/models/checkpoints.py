"""Explanandum and Explainer checkpoints: read strictly and safely, written so that they load again the same way.

    explanandum/  base_model/, data_processor/, model/     a classifier of reads, see layouts/published.py
               or config.json, model.safetensors, ...      one of texts or proteins, see layouts/pretrained.py
                  wyr.json                                 pooling and training provenance, optional
    explainer/    config.json, model.safetensors

No remote code is executed, a pickle may only build numpy arrays, and no name in a file leads out of its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, is_folder, write_whole
from wyr_batch.errors import ModelError
from wyr_batch.models.encoder import Encoder, EncoderConfig
from wyr_batch.models.explainer import KINDS, Explainer
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.families.heads import LinearHeads
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.families.text import TextExplanandum
from wyr_batch.models.families.tokenizer import TOKENIZER_FILES
from wyr_batch.models.layouts.pretrained import load_pretrained, save_pretrained
from wyr_batch.models.layouts.published import NT_TYPE, UNUSED_KEYS, load_published, read_ranks, save_published
from wyr_batch.models.layouts.tensors import folder_from_hub, folder_tensors, load_strictly, save_tensors, write_json
from wyr_batch.models.lstm import LstmConfig, LstmExplainer
from wyr_batch.models.readout import ReadoutConfig, ReadoutExplainer
from wyr_batch.models.tensorfile import read_tensors
from wyr_batch.ranks import Rank

__all__ = [
    "load_encoder",
    "load_explainer",
    "load_explanandum",
    "read_ranks",
    "save_explainer",
    "save_explanandum",
    "tokenizer_folder",
]

_UNUSED = "norm.num_batches_tracked"


def load_explanandum(source: str | Path) -> tuple[Explanandum, list[Rank]]:
    """Load a classifier checkpoint, every tensor accounted for.

    Args:
        source: a folder in the published layout or in that of transformers; or the id of a model on the Hugging Face
            Hub in the latter, which is downloaded. No code of the model's is ever executed.
    Returns: the model in float32 and evaluation mode, and its ranks.
    Raises: ModelError naming the tensor that is missing, unknown or of another shape; MissingExtraError.
    """
    folder = Path(source)
    if isinstance(source, str) and not is_folder(folder, ModelError):
        folder = folder_from_hub(source, ("config.json", "*.safetensors*", *TOKENIZER_FILES))
    if is_published(folder) or not exists(folder / "config.json", ModelError):
        return load_published(folder)
    return load_pretrained(folder)


def is_published(folder: Path) -> bool:
    """True if a classifier's folder is in the published layout."""
    return exists(folder / "base_model" / "config.json", ModelError)


def tokenizer_folder(folder: Path) -> Path:
    """Return where the tokenizer of a classifier's folder lies."""
    return folder / "base_model" if is_published(folder) else folder


def save_explanandum(
    model: Explanandum, ranks: Sequence[Rank], folder: Path, provenance: Mapping[str, Any], half: bool = False
) -> None:
    """Write a classifier checkpoint so that `load_explanandum` gives it again; `half` stores float16."""
    if isinstance(model, TextExplanandum):
        save_pretrained(model, ranks, folder, provenance, half)
    elif isinstance(model, LinearHeads):
        save_published(model, ranks, folder, provenance, half)
    else:
        raise TypeError(f"no layout for the family {model.family!r}")


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
        folder = folder_from_hub(source)
    if exists(folder / "model" / "model.safetensors", ModelError):
        return _of_nt(load_explanandum(folder)[0]).encoder
    encoder = Encoder(EncoderConfig.from_json(folder / "config.json"))
    path, tensors = folder_tensors(folder)
    prefix = "base_model." if any(key.startswith("esm.") for key in tensors) else "base_model.esm."
    full = {f"{prefix}{key}": value.float() for key, value in tensors.items()}
    kept = {k.removeprefix("base_model.esm."): v for k, v in full.items() if not k.startswith(UNUSED_KEYS[NT_TYPE])}
    load_strictly(encoder, kept, path)
    return encoder


def _of_nt(model: Explanandum) -> NtExplanandum:
    """Return the model if it is of the family NT v2. Raises: ModelError."""
    if not isinstance(model, NtExplanandum):
        raise ModelError("explanandum", f"the family {model.family}", NtExplanandum.family)
    return model


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
    load_strictly(explainer, tensors, path)
    return explainer.eval()


def save_explainer(model: Explainer, folder: Path, provenance: Mapping[str, Any], half: bool = False) -> None:
    """Write an Explainer checkpoint; `half` stores float16."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.json", model.config.to_json())
    write_json(folder / "wyr.json", provenance)
    tensors = {k: v for k, v in model.state_dict().items() if k != _UNUSED}
    save_tensors(tensors, folder / "model.safetensors", half)
