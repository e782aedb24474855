"""Bundles: an exported model as a directory, read with every check before anything runs.

    bundle.json    schema_version, name, ranks, tokenizer, max_tokens, window_bp, pooling, files, training, metrics
    model.onnx     the fused graph in float32; other precisions beside it
    parity.json    per file: what was compared with float32 torch, how far off it was, and the verdict
    checkpoint/    explanandum/ and explainer/, for --runtime torch and for exporting again

A file whose hash differs from bundle.json, or that parity.json does not call passed, is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from wyr_batch.errors import ModelError
from wyr_batch.ranks import Rank, ranks_from_json, ranks_to_json

SCHEMA_VERSION = 1
PARITY_PASSED = "passed"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle: its path in the bundle, sha256, dtype and kind (onnx, checkpoint)."""

    path: str
    sha256: str
    dtype: str
    kind: str


@dataclass(frozen=True)
class Bundle:
    """A model directory whose bundle.json has been read; files are checked when they are asked for."""

    folder: Path
    name: str
    ranks: tuple[Rank, ...]
    max_tokens: int
    window_bp: int
    pooling: str
    files: tuple[BundleFile, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""

    @property
    def n_classes(self) -> int:
        return sum(len(rank.labels) for rank in self.ranks)

    def summary(self) -> str:
        """Return ranks and class counts in a few words, as in `4 superkingdom, 11 phylum, 52 genus classes`."""
        return ", ".join(f"{len(rank.labels)} {rank.name}" for rank in self.ranks) + " classes"

    @cached_property
    def sha256(self) -> str:
        """Hash of bundle.json, which holds the hashes of all the files."""
        return sha256_of(self.folder / "bundle.json")

    def verified(self, kind: str, dtype: str) -> Path:
        """Return the path of the file of that kind and dtype after checking its hash and its parity record.

        Raises: ModelError naming what the bundle holds, or what does not match.
        """
        entries = [f for f in self.files if f.kind == kind and f.dtype == dtype]
        if not entries:
            held = ", ".join(f"{f.kind} {f.dtype}" for f in self.files) or "nothing"
            raise ModelError(
                f"{self.folder}: got {held}, expected {kind} {dtype}. Ask for a dtype the bundle holds, or export it."
            )
        entry = entries[0]
        path = self.verified_entry(entry)
        for beside in self.files:  # weights of a graph beyond 2 GB
            if beside.path == f"{entry.path}.data":
                self.verified_entry(beside)
        if kind == "onnx" and self.parity.get(entry.path, {}).get("verdict") != PARITY_PASSED:
            raise ModelError(
                f"{path}: got no passing record in parity.json, expected one. "
                "An unproven file is not run; export it again with wyr-batch export."
            )
        return path

    def proven(self, runtime: str, dtype: str) -> Path:
        """Return what a runtime other than ONNX Runtime computes from, after checking hashes and proof.

        OpenVINO takes the float32 graph, torch the checkpoint; each in every precision that parity.json proves.
        Float32 torch is what all others are compared with and needs no proof.

        Returns: the graph's path, or the folder of the checkpoint.
        Raises: ModelError naming what is proven.
        """
        path = self.verified("onnx", "float32") if runtime == "openvino" else self.checkpoint()
        if (runtime, dtype) != ("torch", "float32") and not self.is_proven(runtime, dtype):
            proven = [name for name, record in self.runtime_parity.items() if record.get("verdict") == PARITY_PASSED]
            raise ModelError(
                f"{self.folder}: got no passing record of {runtime} {dtype} in parity.json, expected one beside "
                f"{', '.join(proven) or 'none'}. Install {runtime} and export the bundle again with --dtype {dtype}."
            )
        return path

    def checkpoint(self) -> Path:
        """Return the folder of the checkpoint after checking the hash of every file. Raises: ModelError."""
        for entry in self.files:
            if entry.kind == "checkpoint":
                self.verified_entry(entry)
        return self.folder / "checkpoint"

    def holds(self, kind: str, dtype: str) -> bool:
        """True if a file of that kind and precision is listed."""
        return any(entry.kind == kind and entry.dtype == dtype for entry in self.files)

    def is_proven(self, runtime: str, dtype: str) -> bool:
        """True if parity.json holds a passing record of that runtime and precision."""
        return bool(self.runtime_parity.get(f"{runtime} {dtype}", {}).get("verdict") == PARITY_PASSED)

    def verified_entry(self, entry: BundleFile) -> Path:
        """Return the path of one listed file after checking its hash. Raises: ModelError."""
        path = self.folder / entry.path
        if not path.is_file():
            raise ModelError(f"{path}: got no such file, expected the one bundle.json lists. Copy the whole bundle.")
        found = sha256_of(path)
        if found != entry.sha256:
            raise ModelError(
                f"{path}: got sha256 {found[:16]}..., expected {entry.sha256[:16]}.... "
                "The file was changed or damaged; copy the bundle again, or export it again."
            )
        return path

    @cached_property
    def _parity_json(self) -> Mapping[str, Any]:
        path = self.folder / "parity.json"
        content: Mapping[str, Any] = _read_json(path) if path.exists() else {}
        return content

    @property
    def parity(self) -> Mapping[str, Any]:
        """Parity records by file path, each with ONNX Runtime; empty without parity.json."""
        records: Mapping[str, Any] = self._parity_json.get("files", {})
        return records

    @property
    def runtime_parity(self) -> Mapping[str, Any]:
        """Parity records by runtime and precision, as in 'openvino bfloat16'."""
        records: Mapping[str, Any] = self._parity_json.get("runtimes", {})
        return records

    @property
    def rows_per_s(self) -> Mapping[str, float]:
        """What each runtime and precision did on one batch when the bundle was exported."""
        speeds: Mapping[str, float] = self._parity_json.get("rows_per_s", {})
        return speeds


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def starter_path() -> Path:
    """Return the bundle that ships inside the package."""
    return Path(str(resources.files("wyr_batch"))) / "starter"


def load_bundle(folder: Path | None = None) -> Bundle:
    """Read a bundle's description; None is the built-in starter.

    Raises: ModelError if the directory is not a bundle, or is of a newer layout.
    """
    folder = folder or starter_path()
    path = folder / "bundle.json"
    if not path.is_file():
        raise ModelError(
            f"{folder}: got no bundle.json, expected a bundle directory. Make one with: wyr-batch export -o {folder}"
        )
    content = _read_json(path)
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"{path}: got schema_version {version}, expected {SCHEMA_VERSION}. "
            "Install the wyr-batch that wrote it, or export it again."
        )
    try:
        return Bundle(
            folder=folder,
            name=content["name"],
            ranks=tuple(ranks_from_json(content["ranks"])),
            max_tokens=int(content["max_tokens"]),
            window_bp=int(content["window_bp"]),
            pooling=content["pooling"],
            files=tuple(BundleFile(**entry) for entry in content["files"]),
            training=content.get("training", {}),
            metrics=content.get("metrics", {}),
            licence=content.get("licence", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: got {error!r} while reading it, expected the fields of schema_version 1.") from None


def bundle_json(
    *,
    name: str,
    ranks: Sequence[Rank],
    max_tokens: int,
    window_bp: int,
    pooling: str,
    files: Sequence[BundleFile],
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    licence: str,
) -> str:
    """Return the text of a bundle.json."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "ranks": ranks_to_json(ranks),
        "tokenizer": {"name": "nucleotide-transformer-v2-6mer", "vocab_size": 4107, "upper_case": True, "u_is_t": True},
        "max_tokens": max_tokens,
        "window_bp": window_bp,
        "pooling": pooling,
        "files": [{"path": f.path, "sha256": f.sha256, "dtype": f.dtype, "kind": f.kind} for f in files],
        "training": training,
        "metrics": metrics,
        "licence": licence,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: got {error}, expected readable JSON. Copy the bundle again.") from None
