"""Bundles from checkpoints: `export_bundle`.

    checkpoints -> checkpoint/ -> graph in torch -> model.onnx, model.fp16.onnx -> proof -> parity.json, bundle.json
                                                                                       -> renamed into place

Everything is written into a directory beside the output, which gets the output's name only when float32 has
passed; a failure of any kind leaves nothing behind. A file of another precision that fails stays out, as does a runtime
that fails, and the failure is said.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from wyr_batch.bundle import NT_FAMILY, PROOF_PASSED, SCHEMA_VERSION, Bundle, BundleFile, load_bundle, sha256_of
from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, shown_path, write_error, write_whole
from wyr_batch.checks.numbers import check_numbers
from wyr_batch.errors import ModelError, OutputError, UsageError
from wyr_batch.models.checkpoints import load_explainer, load_explanandum, save_explainer, save_explanandum
from wyr_batch.models.explainer import check_pair
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.fused import Fused
from wyr_batch.proof.compare import ProofRecord
from wyr_batch.tokens.kmers import TOKEN_BP

from .bundle_json import bundle_json
from .graph import graph_module
from .onnx_file import onnx_from_torch
from .proof import FILES, prove
from .tokens import proof_tokens, write_tokenizer

TOKENIZER = "tokenizer.json"
REFERENCE = "float32 torch from checkpoint/"
MOST_THREADS = 4096


def export_bundle(
    explanandum_dir: Path,
    explainer_dir: Path,
    output: Path,
    *,
    name: str,
    window_bp: int,
    max_tokens: int,
    dtypes: Sequence[str] = ("float32",),
    reads: Sequence[npt.ArrayLike] | Path | None = None,
    metrics: Mapping[str, Any] | None = None,
    licence: str = "",
    half_checkpoint: bool = False,
    compact: bool = False,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    reads_s: float = math.inf,
    show_bar: bool = False,
) -> Bundle:
    """Export two checkpoints as a bundle whose every file and runtime is proven against float32 torch.

    Args:
        explanandum_dir, explainer_dir: as `wyr_batch.models.checkpoints` reads them; training provenance is taken
            from their wyr.json.
        output: directory to make; it appears only when everything is right.
        max_tokens: the longest row the graph must take, `<cls>` counted.
        dtypes: precisions to prove, float32 among them.
        reads: token ids of real reads, without special ones, to prove it on; or a file of reads, or of texts, see
            `proof_tokens`; None: random tokens.
        half_checkpoint: store checkpoint/ as float16. The graph and its reference are then made from the rounded
            weights, so that exporting the bundle's own checkpoint gives the same file.
        compact: store weights of model.onnx that float16 holds exactly as float16; worth it with `half_checkpoint`.
        threads: for ONNX Runtime within an operation; None leaves the choice to it.
        overwrite: replace an existing bundle; a directory that is none, or holds files of others, is never replaced.
        progress: called with one line as each step starts.
        reads_s: seconds that the proof of each form may take for `reads`, see `wyr_batch.proof.compare`.
        show_bar: show how far each proof is.
    Raises: UsageError for numbers or a name that no bundle has; OutputError if `output` exists; ModelError if a
        checkpoint is not right, if the two do not belong together, or if the exported graph differs from torch.
    """
    _check_name(name)
    check_numbers([("--threads", threads, 0, MOST_THREADS)])
    _refuse_existing(output, overwrite)
    progress("loading checkpoints")
    explanandum, ranks = load_explanandum(explanandum_dir)
    explainer = load_explainer(explainer_dir)
    check_pair(explanandum, explainer, shown_path(explainer_dir))
    if max_tokens > explanandum.max_tokens:
        raise UsageError(
            "--max-tokens",
            max_tokens,
            f"at most {explanandum.max_tokens}, the longest row that {shown_path(explanandum_dir)} takes",
        )
    window = _window(explanandum, window_bp, max_tokens)
    training = {"explanandum": _provenance(explanandum_dir), "explainer": _provenance(explainer_dir)}
    # Beside the output, so that the rename stays within one file system.
    target = Path(os.path.realpath(output))
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        checkpoint = partial / "checkpoint"
        save_explanandum(explanandum, ranks, checkpoint / "explanandum", training["explanandum"], half=half_checkpoint)
        save_explainer(explainer, checkpoint / "explainer", training["explainer"], half=half_checkpoint)
        if half_checkpoint:
            explanandum, _ = load_explanandum(checkpoint / "explanandum")
            explainer = load_explainer(checkpoint / "explainer")
        tokenizer = write_tokenizer(explanandum, partial)
        rows = proof_tokens(reads, explanandum, tokenizer) if isinstance(reads, Path) else reads
        for dtype in dtypes:
            if dtype in FILES:
                progress(f"exporting {FILES[dtype]}")
                module = graph_module(explanandum, explainer, max_tokens, dtype)
                onnx_from_torch(module, partial / FILES[dtype], compact=compact)
        reference = Fused(explanandum, explainer).eval()
        records, speeds = prove(
            partial, reference, max_tokens, dtypes, rows, threads, progress, reads_s=reads_s, show_bar=show_bar
        )
        _keep_out_failures(partial, output, records, dtypes, progress)
        progress("writing bundle.json")
        proofs = {
            "schema_version": SCHEMA_VERSION,
            "reference": REFERENCE,
            **{place: {name: record.to_json() for name, record in found.items()} for place, found in records.items()},
            "rows_per_s": speeds,
        }
        write_whole(partial / "parity.json", json.dumps(proofs, indent=2, allow_nan=False) + "\n")
        described = Bundle(
            folder=partial,
            name=name,
            ranks=tuple(ranks),
            max_tokens=max_tokens,
            **window,
            pooling=explanandum.pooling,
            files=tuple(_files(partial, "float16" if half_checkpoint else "float32")),
            vocabulary=explanandum.vocabulary,
            family=explanandum.family,
            input=explanandum.input,
            mask_site=explanandum.mask_site,
            multi_label=explanandum.multi_label,
            training=training,
            metrics=metrics or {},
            licence=licence,
        )
        write_whole(partial / "bundle.json", bundle_json(described))
        _refuse_existing(output, overwrite)  # again: it was minutes ago
        _move_into_place(partial, target)
    except OSError as error:
        raise write_error(output, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_bundle(output)


def _keep_out_failures(
    folder: Path,
    output: Path,
    records: dict[str, dict[str, ProofRecord]],
    dtypes: Sequence[str],
    progress: Callable[[str], None],
) -> None:
    """Remove files and records that failed; float32, or a precision with nothing left of it, is an error."""
    failed = {
        (place, name): record
        for place, found in records.items()
        for name, record in found.items()
        if record.verdict != PROOF_PASSED
    }
    for (place, name), record in failed.items():
        if name == FILES["float32"]:
            raise _unproven(output / name, record, "Nothing was written.")
        progress(f"left out of the bundle: {_unproven(output / name, record)}")
        del records[place][name]
        if place == "files":
            for path in folder.glob(f"{name}*"):
                path.unlink()
    for dtype in dtypes:
        left = [name for name in records["runtimes"] if name.endswith(f" {dtype}")]
        if FILES.get(dtype) not in records["files"] and not left:
            raise ModelError(output, f"no {dtype} that agrees with float32 torch", "one", "See above.")


def _check_name(name: str) -> None:
    """Raise UsageError for a name that is none."""
    if not name.strip() or "/" in name or name in (".", "..") or not name.isprintable():
        raise UsageError("--name", f"{name!r}", "a name of letters that can be printed, without a slash")


def _window(explanandum: Explanandum, window_bp: int, max_tokens: int) -> dict[str, int]:
    """Return the fields of a Bundle that say how long its windows are.

    Raises: UsageError for a window that the graph does not take, or a graph that takes nothing.
    """
    n_special = explanandum.vocabulary.n_special
    check_numbers([("--max-tokens", max_tokens, n_special + 1, math.inf)])
    if explanandum.family != NT_FAMILY:
        return {"window_bp": 0, "fixed_window_tokens": max_tokens - n_special}
    check_numbers([("--window", window_bp, TOKEN_BP, math.inf)])
    n_tokens, most = window_bp // TOKEN_BP + n_special, (max_tokens - n_special) * TOKEN_BP
    if n_tokens > max_tokens:
        raise UsageError(
            "--window",
            f"{window_bp} bp ({n_tokens} tokens, <cls> counted)",
            f"{TOKEN_BP} to {most} bp, what --max-tokens {max_tokens} leaves room for",
            "Change one of the two.",
        )
    return {"window_bp": window_bp}


def _refuse_existing(output: Path, overwrite: bool) -> None:
    """Raise OutputError unless there is nothing, or a bundle to replace that holds nothing but its own files."""
    shown = shown_path(output)
    if not exists(output, OutputError):
        return
    if not overwrite:
        raise OutputError(shown, "an existing output", "none", "Use --overwrite, or another name.")
    try:
        foreign = _foreign_entry(load_bundle(output))
    except (ModelError, OSError) as error:
        raise OutputError(
            shown, f"something that is no bundle ({error})", "a bundle to replace", "Use another name."
        ) from None
    if foreign is not None:
        raise OutputError(
            shown_path(foreign),
            "what bundle.json does not list",
            "files of the bundle only, which --overwrite deletes",
            "Move it elsewhere, or use another name.",
        )


def _foreign_entry(bundle: Bundle) -> Path | None:
    """Return a file or folder in a bundle that its bundle.json does not list."""
    own = {"bundle.json", "parity.json", *(entry.path for entry in bundle.files)}
    own_folders = {str(parent) for path in own for parent in PurePosixPath(path).parents}
    for path in sorted(bundle.folder.rglob("*")):
        where = path.relative_to(bundle.folder).as_posix()
        is_folder = path.is_dir() and not path.is_symlink()
        if where not in (own_folders if is_folder else own):
            return path
    return None


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / "wyr.json"
    return Fields.read(path, ModelError).content if exists(path, ModelError) else {}


def _unproven(path: Path, record: ProofRecord, advice: str = "") -> ModelError:
    differences = ", ".join(f"{name} {value:.3g}" for name, value in record.max_abs_diff.items())
    said = f"Largest differences on {record.n_reads} reads of {record.n_tokens} tokens: {differences}."
    return ModelError(path, "; ".join(record.failures), "what float32 torch gives", f"{said} {advice}".rstrip())


def _files(folder: Path, checkpoint_dtype: str) -> list[BundleFile]:
    """Return the entries of bundle.json: graphs (and their weights, if beside them), then every checkpoint file."""
    entries = []
    for path in sorted(folder.rglob("*")):
        where = path.relative_to(folder)
        if where.name in ("parity.json", "bundle.json") or not path.is_file():
            continue
        if where.name == TOKENIZER:
            entries.append(BundleFile(where.as_posix(), sha256_of(path), "", "tokenizer"))
        elif where.parts[0] == "checkpoint":
            entries.append(BundleFile(where.as_posix(), sha256_of(path), checkpoint_dtype, "checkpoint"))
        else:
            graph = where.name.removesuffix(".data")
            dtype = next(dtype for dtype, name in FILES.items() if name == graph)
            kind = "onnx" if where.name == graph else "onnx-data"
            entries.append(BundleFile(where.as_posix(), sha256_of(path), dtype, kind))
    return sorted(entries, key=lambda entry: entry.kind == "checkpoint")


def _move_into_place(partial: Path, output: Path) -> None:
    """Give the finished directory its name, that of no link; an old bundle goes only once the new one stands."""
    if not output.exists():
        partial.rename(output)
        return
    old = partial.with_suffix(".old")
    output.rename(old)
    try:
        partial.rename(output)
    except OSError:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
