"""Bundles: an exported model as a directory, read with every check before anything runs.

    bundle.json    schema_version, name, family, input, ranks, tokenizer, max_tokens, window, pooling, files, ...
    model.onnx     the fused graph in float32; other precisions beside it
    parity.json    per file: what was compared with float32 torch, how far off it was, and the verdict
    checkpoint/    explanandum/ and explainer/, for --runtime torch and for exporting again

A file whose hash differs from bundle.json, or that parity.json does not call passed, is refused, and so is a name
that leads out of the bundle. Links are followed: where they lead is up to who made the folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, is_file, reason_of, shown_path
from wyr_batch.errors import ModelError
from wyr_batch.ranks import Rank, check_ranks, ranks_from_json
from wyr_batch.vocabulary import SIX_MERS, Vocabulary, vocabulary_from_json

SCHEMA_VERSION = 1  # of bundles of Nucleotide Transformers
FAMILIES_VERSION = 2  # of bundles of other families: versions of this tool that know none must not read them
NT_FAMILY = "nucleotide-transformer-v2"
UNITS = {"reads": "bp", "proteins": "aa", "text": "characters"}  # by input, what lengths are counted in
PROOF_PASSED = "passed"
LONGEST = 10**9  # of tokens and bases, which are counted in int32

_ADVICE = "Copy the bundle again, or export it again."


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle: its path in the bundle, sha256, dtype and kind (onnx, checkpoint, tokenizer)."""

    path: str
    sha256: str
    dtype: str
    kind: str


@dataclass(frozen=True)
class Bundle:
    """A model directory whose bundle.json has been read; files are checked when they are asked for.

    Attributes:
        max_tokens: of a row, special ones counted.
        window_bp: longer reads are cut into windows of so many bases; 0 where tokens have no length of their own.
        fixed_window_tokens: the same in tokens, where `window_bp` is 0.
        family: of the classifier, see models/families/; input: 'reads', 'proteins' or 'text'.
        mask_site: what the mask scales.
        multi_label: each rank is a label that is there or not.
    """

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
    fixed_window_tokens: int = 0
    vocabulary: Vocabulary = SIX_MERS
    family: str = NT_FAMILY
    input: str = "reads"
    mask_site: str = "embeddings"
    multi_label: bool = False

    @property
    def window_tokens(self) -> int:
        """Tokens of a window, special ones not counted."""
        return self.window_bp // 6 if self.window_bp else self.fixed_window_tokens

    @property
    def unit(self) -> str:
        """What lengths are counted in: bp, aa or characters."""
        return UNITS[self.input]

    def tokenizer_file(self) -> Path:
        """Return the path of tokenizer.json after checking its hash. Raises: ModelError."""
        for entry in self.files:
            if entry.kind == "tokenizer" and entry.path == self.vocabulary.file:
                return self.verified_entry(entry)
        listed = ", ".join(entry.path for entry in self.files)
        raise ModelError(shown_path(self.folder), f"the files {listed}", f"{self.vocabulary.file} too", _ADVICE)

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
        """Return the path of the file of that kind and dtype after checking its hash and its proof.

        Raises: ModelError naming what the bundle holds, or what does not match.
        """
        entries = [f for f in self.files if f.kind == kind and f.dtype == dtype]
        if not entries:
            held = ", ".join(f"{f.kind} {f.dtype}" for f in self.files if f.kind == kind) or f"nothing of {kind}"
            advice = f"Ask for a dtype the bundle holds, or export it{' with --fp16' if dtype == 'float16' else ''}."
            raise ModelError(shown_path(self.folder), held, f"{kind} {dtype}", advice)
        entry = entries[0]
        path = self.verified_entry(entry)
        for beside in self.files:  # weights of a graph beyond 2 GB
            if beside.path == f"{entry.path}.data":
                self.verified_entry(beside)
        if kind == "onnx" and self.proofs.get(entry.path, {}).get("verdict") != PROOF_PASSED:
            raise ModelError(
                path,
                "no passing record in parity.json",
                "one",
                "An unproven file is not run; export it again with wyr-batch export.",
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
            proven = [name for name, record in self.runtime_proofs.items() if record.get("verdict") == PROOF_PASSED]
            raise ModelError(
                self.folder,
                f"no passing record of {runtime} {dtype} in parity.json",
                f"one beside {', '.join(proven) or 'none'}",
                f"Install {runtime} and export the bundle again with --dtype {dtype}.",
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
        return bool(self.runtime_proofs.get(f"{runtime} {dtype}", {}).get("verdict") == PROOF_PASSED)

    def proves_without_masked_calls(self, runtime: str, dtype: str) -> bool:
        """True if parity.json holds a passing record of that way without the second pass.

        Float32 torch needs none, see `proven`. Bundles of before there were such records have none.
        """
        passed = self.proofs_without_masked_calls.get(f"{runtime} {dtype}", {}).get("verdict") == PROOF_PASSED
        return passed or (runtime, dtype) == ("torch", "float32")

    def verified_entry(self, entry: BundleFile) -> Path:
        """Return the path of one listed file after checking its hash. Raises: ModelError."""
        path = self.folder / entry.path
        if not is_file(path, ModelError):
            raise ModelError(path, "no such file", "the one bundle.json lists", "Copy the whole bundle.")
        found = sha256_of(path)
        if found != entry.sha256:
            raise ModelError(
                path,
                f"sha256 {found[:16]}...",
                f"{entry.sha256[:16]}...",
                "The file was changed or damaged; copy the bundle again, or export it again.",
            )
        return path

    @cached_property
    def _proof_json(self) -> Mapping[str, Any]:
        path = self.folder / "parity.json"
        if not exists(path, ModelError):
            return {}
        content = Fields.read(path, ModelError, _ADVICE)
        for place in ("files", "runtimes", "without_masked_calls"):
            for _, record in content.named_objects(place, {}):
                _check_record(record, masked=place != "without_masked_calls")
        speeds = content.object("rows_per_s", {})
        for name in speeds.content:
            speeds.number(name, least=0)
        return content.content

    @property
    def proofs(self) -> Mapping[str, Any]:
        """Records of proofs by file path, each with ONNX Runtime; empty without parity.json."""
        records: Mapping[str, Any] = self._proof_json.get("files", {})
        return records

    @property
    def runtime_proofs(self) -> Mapping[str, Any]:
        """Records of proofs by runtime and precision, as in 'openvino bfloat16'."""
        records: Mapping[str, Any] = self._proof_json.get("runtimes", {})
        return records

    @property
    def proofs_without_masked_calls(self) -> Mapping[str, Any]:
        """Records of proofs without the second pass, by runtime and precision; none in bundles of before."""
        records: Mapping[str, Any] = self._proof_json.get("without_masked_calls", {})
        return records

    @property
    def all_proofs(self) -> Mapping[str, Any]:
        """All records, by what they prove."""
        without = {f"{name} without masked calls": record for name, record in self.proofs_without_masked_calls.items()}
        return {**self.proofs, **self.runtime_proofs, **without}

    @property
    def rows_per_s(self) -> Mapping[str, float]:
        """What each runtime and precision did on one batch when the bundle was exported, if it could run it."""
        speeds: Mapping[str, float] = self._proof_json.get("rows_per_s", {})
        return {name: speed for name, speed in speeds.items() if speed > 0}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal text. Raises: ModelError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            shown_path(path), f"'{reason_of(error)}'", "a file that can be read", "Check its rights."
        ) from None


def stays_inside(name: str) -> bool:
    """True if a name that a file gives can only lead to the folder it is meant for: relative, plain, no `..`.

    >>> [stays_inside(name) for name in ("a/b.onnx", "../b.onnx", "/b.onnx", "a//b.onnx", "")]
    [True, False, False, False, False]
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half a surrogate pair: no file has such a name
        return False
    return not re.search(r"[\\\0]", name) and not {"", ".", ".."}.intersection(name.split("/"))


def starter_path() -> Path:
    """Return the bundle that ships inside the package."""
    return Path(str(resources.files("wyr_batch"))) / "starter"


def load_bundle(folder: Path | None = None) -> Bundle:
    """Read a bundle's description; None is the built-in starter.

    Raises: ModelError if the directory is not a bundle, is of a newer layout, or a field is not what it should be.
    """
    folder = folder or starter_path()
    path = folder / "bundle.json"
    if not is_file(path, ModelError):
        shown = shown_path(folder)
        raise ModelError(shown, "no bundle.json", "a bundle directory", f"Make one with: wyr-batch export -o {shown}")
    content = Fields.read(path, ModelError, _ADVICE)
    version = content.whole("schema_version")
    if version not in (SCHEMA_VERSION, FAMILIES_VERSION):
        raise ModelError(
            shown_path(path),
            f"schema_version {version}",
            f"{SCHEMA_VERSION} or {FAMILIES_VERSION}",
            "Install the wyr-batch that wrote it, or export it again.",
        )
    ranks = ranks_from_json(content.objects("ranks"))
    check_ranks(ranks, shown_path(path))
    return Bundle(
        folder=folder,
        name=content.text("name"),
        ranks=tuple(ranks),
        max_tokens=content.whole("max_tokens", least=2, most=LONGEST),
        **_window_and_tokens(content),
        pooling=content.text("pooling", one_of=("mean", "cls")),
        files=_files_from_json(content.objects("files")),
        training=content.mapping("training", {}),
        metrics=content.mapping("metrics", {}),
        licence=content.text("licence", ""),
        family=NT_FAMILY if version == SCHEMA_VERSION else content.text("family"),
        input=content.text("input", "reads", one_of=tuple(UNITS)),
        mask_site=content.text("mask_site", "embeddings"),
        multi_label=content.flag("multi_label", False),
    )


def _window_and_tokens(content: Fields) -> dict[str, Any]:
    """Return the fields of a Bundle that say what its tokens are and how long its windows. Raises: ModelError."""
    vocabulary = vocabulary_from_json(content.object("tokenizer", {}))
    if vocabulary.file:
        if not stays_inside(vocabulary.file):
            raise content.wrong("tokenizer", "a relative path that stays inside the bundle")
        window = content.whole("window_tokens", least=1, most=content.whole("max_tokens") - vocabulary.n_special)
        return {"window_bp": 0, "fixed_window_tokens": window, "vocabulary": vocabulary}
    window_bp = content.whole("window_bp", least=6, most=LONGEST)
    return {"window_bp": window_bp, "vocabulary": vocabulary}


def _files_from_json(entries: Sequence[Fields]) -> tuple[BundleFile, ...]:
    """Return the files of bundle.json. Raises: ModelError, also if a path leads out of the bundle or comes twice."""
    files: dict[str, BundleFile] = {}
    for entry in entries:
        path, sha256 = entry.text("path"), entry.text("sha256")
        suspect = Fields(entry.content, entry.where, ModelError, "Do not trust this bundle.", nested=True)
        if not stays_inside(path):
            raise suspect.wrong("path", "a relative path that stays inside the bundle")
        if path in files:
            raise suspect.wrong("path", "each path once")
        if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise entry.wrong("sha256", "64 hexadecimal digits")
        files[path] = BundleFile(path, sha256.lower(), entry.text("dtype"), entry.text("kind"))
    return tuple(files.values())


def _check_record(record: Fields, masked: bool) -> None:
    """Raise ModelError unless the record of a proof, with or without masked calls, has what is read of it."""
    record.text("verdict", one_of=(PROOF_PASSED, "failed"))
    record.whole("n_reads", least=0)
    for name in ("label_agreement", "masked_label_agreement"):
        shares = record.content.get(name)
        if name.startswith("masked") and not masked and shares == []:
            continue
        if not (isinstance(shares, list) and shares and all(map(_is_share, shares))):
            raise record.wrong(name, "a list of numbers from 0 to 1")
    for fields, name in ((record.object("max_abs_diff"), "mask"), (record, "mask_mean_abs_diff")):
        if fields.content.get(name, 0) is not None:  # null where it was infinite, or no number
            fields.number(name, least=0)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
