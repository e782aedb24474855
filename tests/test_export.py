"""Bundles: what an export writes, what it refuses and leaves alone, and what is refused when one is loaded."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import wyr_batch.export.write_bundle as export_module
from change_json import MISSING, change
from exported_toy import MAX_TOKENS, SHORT, own_checkpoint
from onnx import numpy_helper
from toy_models import save_toy_checkpoints
from wyr_batch.export.write_bundle import export_bundle

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.cli import main
from wyr_batch.errors import ModelError, OutputError
from wyr_batch.models.fused import Fused


def test_bundle_holds_what_it_says(exported: Bundle) -> None:
    assert exported.verified("onnx", "float32") == exported.folder / "model.onnx"
    assert (exported.name, exported.window_bp, exported.pooling) == ("toy", 3000, "mean")
    assert exported.max_tokens == MAX_TOKENS
    assert exported.training["explainer"] == {"recipe": "toy", "epochs": 0}
    assert (exported.metrics, exported.licence) == ({"area": 0.25}, "CC0-1.0")
    listed = {entry.path for entry in exported.files} | {"bundle.json", "parity.json"}
    assert listed == {str(p.relative_to(exported.folder)) for p in exported.folder.rglob("*") if p.is_file()}
    record = exported.proofs["model.onnx"]
    assert (record["verdict"], record["lengths"]) == ("passed", [7, 65, 200, MAX_TOKENS])


def test_existing_output_is_refused(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = save_toy_checkpoints(tmp_path / "checkpoints")
    with pytest.raises(OutputError, match="got an existing output, expected none"):
        export_bundle(*checkpoints, exported.folder, **SHORT)
    (tmp_path / "precious").mkdir()
    with pytest.raises(OutputError, match="got something that is no bundle"):
        export_bundle(*checkpoints, tmp_path / "precious", **SHORT, overwrite=True)
    monkeypatch.setattr(export_module, "onnx_from_torch", exporting(onnx.load(exported.folder / "model.onnx")))
    old = shutil.copytree(exported.folder, tmp_path / "old")
    (tmp_path / "link").symlink_to(old)
    again = {**SHORT, "name": "new"}
    new = export_bundle(*own_checkpoint(old), tmp_path / "link", **again, overwrite=True)
    assert (new.name, load_bundle(old).name) == ("new", "new")
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "link", "old", "precious"]


@pytest.mark.parametrize("foreign", ["notes.txt", "checkpoint/explainer/notes.txt", "empty/", "link"])
def test_overwrite_deletes_no_foreign_file(exported: Bundle, tmp_path: Path, foreign: str) -> None:
    old = shutil.copytree(exported.folder, tmp_path / "old")
    path = old / foreign
    if foreign == "link":
        path.symlink_to(exported.folder)
    elif foreign.endswith("/"):
        path.mkdir()
    else:
        path.write_text("precious")
    before = {found: found.is_dir() or found.read_bytes() for found in old.rglob("*")}
    with pytest.raises(
        OutputError, match=f"{foreign.rstrip('/')}: got what bundle.json does not list.* Move it elsewhere"
    ):
        export_bundle(*save_toy_checkpoints(tmp_path), old, **SHORT, overwrite=True)
    assert {found: found.is_dir() or found.read_bytes() for found in old.rglob("*")} == before


def test_files_that_appear_while_a_bundle_is_made_stay(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = shutil.copytree(exported.folder, tmp_path / "old")
    write = exporting(onnx.load(old / "model.onnx"))

    def write_and_note(module: Fused, path: Path, **options: Any) -> None:
        write(module, path)
        (old / "notes.txt").write_text("precious")

    monkeypatch.setattr(export_module, "onnx_from_torch", write_and_note)
    with pytest.raises(OutputError, match=r"notes\.txt: got what"):
        export_bundle(*own_checkpoint(old), old, **SHORT, overwrite=True)
    assert (old / "notes.txt").read_text() == "precious"
    assert load_bundle(old).verified("onnx", "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


NEW_GRAPH = pytest.param(
    True,
    marks=pytest.mark.skipif("WYR_TEST_LARGE" not in os.environ, reason="takes half a minute; WYR_TEST_LARGE=1"),
)


@pytest.mark.parametrize("new_graph", [False, NEW_GRAPH])
def test_starter_exports_again_without_a_word(
    new_graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph that it comes with stands in for the same one made again, and is proven as that one would be."""
    starter, reads = load_bundle(), tmp_path / "reads.fasta"
    if not new_graph:
        own = onnx.load(starter.folder / "model.onnx")
        monkeypatch.setattr(export_module, "onnx_from_torch", exporting(own))
    reads.write_text(">a\n" + "ACGTTGCA" * 30 + "\n>b\nACGTNACGGTTTA\n")
    words = ["export", "-q", "-t", "1", "-o", str(tmp_path / "again"), "--max-tokens", "64", "--window", "300"]
    assert main([*words, "--verify", str(reads)]) == 0
    assert capsys.readouterr() == ("", "")
    again = load_bundle(tmp_path / "again")
    assert again.ranks == starter.ranks
    assert again.metrics == starter.metrics
    assert again.proofs["model.onnx"]["verdict"] == "passed"
    weights = [f for f in starter.files if f.path.endswith(".safetensors")]
    assert len(weights) == 2
    assert all(f in again.files for f in weights), "the same weights, to the bit"


def exporting(model: onnx.ModelProto) -> Callable[..., None]:
    """Return what stands in for `onnx_from_torch` and writes this model."""

    def write(module: Fused, path: Path, **options: Any) -> None:
        onnx.save(model, path)

    return write


def change_one_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "explainer.head_weight")
    values = numpy_helper.to_array(tensor).copy()
    values[1] += 0.05  # the first class has no mask
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def freeze_tokens(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 24


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [(change_one_weight, "mask: got a largest difference"), (freeze_tokens, "Got: 7 Expected: 24|InvalidArgument")],
)
def test_failed_proof_leaves_nothing_behind(
    exported: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    sabotage(model)
    monkeypatch.setattr(export_module, "onnx_from_torch", exporting(model))
    with pytest.raises(ModelError, match=words) as raised:
        export_bundle(*own_checkpoint(exported.folder), tmp_path / "out" / "toy", **SHORT)
    assert "Nothing was written" in str(raised.value)
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_says_what_to_do_and_leaves_nothing_behind(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export_module, "onnx_from_torch", full)
    words = r"toy: got 'No space left on device' while writing, expected a place with space .* name another place\."
    with pytest.raises(OutputError, match=words):
        export_bundle(*own_checkpoint(exported.folder), tmp_path / "out" / "toy", **SHORT)
    assert not list((tmp_path / "out").iterdir())


def test_a_graph_that_is_not_there_is_said_by_the_graphs_that_are() -> None:
    words = r"got onnx float32, expected onnx float16\. Ask for a dtype the bundle holds, or export it with --fp16\.$"
    with pytest.raises(ModelError, match=words):
        load_bundle().verified("onnx", "float16")
    with pytest.raises(ModelError, match=r"got onnx float32, expected onnx bfloat16\..* or export it\.$"):
        load_bundle().verified("onnx", "bfloat16")


def test_checkpoints_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    checkpoints = save_toy_checkpoints(tmp_path, num_classes=12)
    with pytest.raises(ModelError, match="explainer: got num_classes 12, expected 10, that of the Explanandum"):
        export_bundle(*checkpoints, tmp_path / "toy", **SHORT)
    assert not (tmp_path / "toy").exists()


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def changed(name: str, *place_and_value: Any) -> Callable[[Path], None]:
    *place, value = place_and_value
    return lambda folder: change(folder / name, tuple(place), value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "got sha256 .*, expected .* changed or damaged"),
        (lambda folder: (folder / "model.onnx").unlink(), "got no such file, expected the one bundle.json lists"),
        (changed("bundle.json", "schema_version", 3), "got schema_version 3, expected 1 or 2"),
        (changed("bundle.json", "schema_version", 2), "family: got nothing, expected text"),
        (lambda folder: (folder / "parity.json").unlink(), "got no passing record in parity.json"),
        (changed("parity.json", "files", "model.onnx", "verdict", "failed"), "got no passing record in parity.json"),
        (changed("bundle.json", "ranks", MISSING), "bundle.json, ranks: got nothing, expected a list of objects"),
        (lambda folder: (folder / "bundle.json").unlink(), "got no bundle.json, expected a bundle directory"),
    ],
)
def test_damaged_bundles_are_refused(
    exported: Bundle, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "toy")
    damage(folder)
    with pytest.raises(ModelError, match=words):
        load_bundle(folder).verified("onnx", "float32")
