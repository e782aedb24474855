"""The exported graph against torch: in torch, as an ONNX file, and as a bundle that refuses what is not proven."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import wyr_batch.export.write_bundle as export_module
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from toy_models import MAX_TOKENS, N_CLASSES, save_toy_checkpoints, toy_explainer, toy_explanandum, toy_fused
from wyr_batch.export.graph import GraphExplainer, graph_module, scan
from wyr_batch.export.onnx_file import FORBIDDEN_OPS, _store_as_half, check_graph, onnx_from_torch, runner_from_onnx
from wyr_batch.export.torch_proof import FLOAT32, Candidate, compare
from wyr_batch.export.write_bundle import export_bundle

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.cli import main
from wyr_batch.errors import ModelError, OutputError, ShapeError
from wyr_batch.models.checkpoints import load_explainer, load_explanandum
from wyr_batch.models.explainer import linear_scan
from wyr_batch.models.fused import Fused, FusedOutput

LENGTHS, BATCH_SIZES = (7, 65, 251), (1, 3, 16)
SETTINGS: dict[str, Any] = {"name": "toy", "window_bp": 3000, "max_tokens": MAX_TOKENS, "threads": 1}


def batch_of(lengths: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return input_ids int32 [B, max(lengths)] of seeded tokens, right-padded with 1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(6, 4107, size=(len(lengths), max(lengths)), dtype=np.int32)
    ids[:, 0] = 3
    ids[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = 1
    return ids


def ragged(n_rows: int, length: int) -> list[int]:
    return [length, *np.random.default_rng(length).integers(1, length + 1, size=n_rows - 1).tolist()]


def torch_outputs(module: Fused, ids: np.ndarray, explain: np.ndarray) -> FusedOutput:
    with torch.no_grad():
        return FusedOutput(*(value.numpy() for value in module(torch.from_numpy(ids), torch.from_numpy(explain))))


def predicted(ids: np.ndarray) -> np.ndarray:
    return np.full((len(ids), len(N_CLASSES)), -1, np.int32)


def assert_same(found: Any, wanted: FusedOutput, tolerance: float = 1e-5) -> None:
    for name, value in wanted._asdict().items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A mean-pooled toy bundle, checkpoint stored as float16 and the graph compact."""
    folder = tmp_path_factory.mktemp("bundle")
    lines: list[str] = []
    made = export_bundle(
        *save_toy_checkpoints(folder),
        folder / "toy",
        **SETTINGS,
        metrics={"area": 0.25},
        licence="CC0-1.0",
        half_checkpoint=True,
        compact=True,
        progress=lines.append,
    )
    assert list(dict.fromkeys(line.split()[0] for line in lines)) == ["loading", "exporting", "comparing", "writing"]
    assert sorted(path.name for path in folder.iterdir()) == ["explainer", "explanandum", "toy"]
    return made


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Fused:
    """The torch models that the bundle was made from."""
    explanandum, _ = load_explanandum(bundle.folder / "checkpoint" / "explanandum")
    return Fused(explanandum, load_explainer(bundle.folder / "checkpoint" / "explainer")).eval()


@pytest.fixture(scope="module")
def cls_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cls") / "model.onnx"
    onnx_from_torch(graph_module(toy_explanandum("cls"), toy_explainer(), MAX_TOKENS), path)
    return path


# The rewrite, in torch


@pytest.mark.parametrize(("num_layers", "cell_states"), [(2, True), (1, True), (2, False), (1, False), (3, True)])
@pytest.mark.parametrize("length", [1, 2, 7, 65, 300])
def test_graph_explainer_equals_explainer(length: int, num_layers: int, cell_states: bool) -> None:
    explainer = toy_explainer(num_layers, cell_states)
    ids = torch.from_numpy(batch_of(ragged(4, length)))
    assert_class_logits_equal(explainer, ids, MAX_TOKENS)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_graph_explainer_takes_any_ragged_batch(lengths: list[int]) -> None:
    assert_class_logits_equal(toy_explainer(), torch.from_numpy(batch_of(lengths)), max(lengths))


def assert_class_logits_equal(explainer: Any, ids: torch.Tensor, max_tokens: int) -> None:
    valid = ids != 1
    classes = torch.arange(3 * len(ids)).reshape(len(ids), 3) % 10
    with torch.no_grad():
        wanted = explainer.class_logits(ids, valid, classes)
        found = GraphExplainer(explainer, max_tokens).class_logits(ids, valid, classes)
    assert found.shape == wanted.shape == (len(ids), 3, ids.shape[1])
    assert (wanted - found).abs()[valid[:, None].expand_as(wanted)].max() < 1e-5


@pytest.mark.parametrize("max_steps", [2, 64, 65, 2048])
def test_scan_equals_linear_scan(max_steps: int) -> None:
    torch.manual_seed(max_steps)
    decay, drive = torch.sigmoid(torch.randn(max_steps, 2, 3) + 3), torch.randn(max_steps, 2, 3)
    wanted = linear_scan(decay.transpose(0, 1), drive.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(scan(decay, drive, max_steps), wanted, rtol=0, atol=1e-4)


def test_graph_module_leaves_the_models_alone_and_refuses_longer_rows() -> None:
    module = graph_module(toy_explanandum(), toy_explainer(), 8)
    assert not module.training
    assert module.explanandum.encoder.explicit_attention
    assert not toy_explanandum().encoder.explicit_attention
    ids = batch_of([8, 3])
    found = torch_outputs(module, ids, predicted(ids))
    assert_same(found._asdict(), torch_outputs(toy_fused(), ids, predicted(ids)))
    with pytest.raises(ShapeError, match="got 9 tokens, expected at most 8"):
        torch_outputs(module, batch_of([9]), predicted(batch_of([9])))


# The file


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("n_rows", BATCH_SIZES)
def test_file_equals_torch(
    bundle: Bundle, reference: Fused, cls_file: Path, sessions: Callable[[Path], Candidate], n_rows: int, length: int
) -> None:
    ids = batch_of(ragged(n_rows, length))
    for path, module in ((bundle.folder / "model.onnx", reference), (cls_file, toy_fused("cls"))):
        wanted = torch_outputs(module, ids, predicted(ids))
        assert_same(sessions(path)(ids, predicted(ids)), wanted)
        explain = (wanted.explained_ids + 1) % np.array(N_CLASSES, np.int32)
        explain[::2, 0] = -1
        other = torch_outputs(module, ids, explain)
        assert_same(sessions(path)(ids, explain), other)
        assert not np.array_equal(other.mask, wanted.mask)
    assert length < 65 or wanted.mask[ids != 1].std() > 0.1  # the toys must be worth comparing


@pytest.fixture(scope="module")
def sessions() -> Callable[[Path], Candidate]:
    """Open each file once."""
    opened: dict[Path, Candidate] = {}

    def session(path: Path) -> Candidate:
        if path not in opened:
            opened[path] = runner_from_onnx(path, threads=1)
        return opened[path]

    return session


def test_row_alone_equals_row_in_padded_batch(cls_file: Path, sessions: Callable[[Path], Candidate]) -> None:
    run = sessions(cls_file)
    lengths = [140, 1, 2, 30, 139]
    ids = batch_of(lengths)
    together = run(ids, predicted(ids))
    for row, length in enumerate(lengths):
        alone = run(ids[row : row + 1, :length].copy(), predicted(ids)[:1])
        assert_same(
            alone,
            FusedOutput(
                together["mask"][row : row + 1, :length],
                together["rank_masks"][row : row + 1, :, :length],
                *(together[name][row : row + 1] for name in ("explained_ids", "probs", "masked_probs")),
            ),
        )
        assert not together["mask"][row, length:].any()
        assert not together["rank_masks"][row, :, length:].any()


def test_file_states_the_contract_and_nothing_of_this_machine(cls_file: Path) -> None:
    content = cls_file.read_bytes()
    for trace in (b"/work", b"/tmp", b"site-packages", b"/home", b".py", str(Path.cwd()).encode()):
        assert trace not in content
    model = onnx.load(cls_file)
    assert (model.producer_name, [(o.domain, o.version) for o in model.opset_import]) == ("wyr-batch", [("", 20)])
    assert {node.op_type for node in model.graph.node}.isdisjoint(FORBIDDEN_OPS)
    assert [len(node.input) for node in model.graph.node if node.op_type == "LSTM"] == [4, 4]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "input_ids": ["batch", "tokens"],
        "explain_ids": ["batch", 3],
        "mask": ["batch", "tokens"],
        "rank_masks": ["batch", 3, "tokens"],
        "explained_ids": ["batch", 3],
        "probs": ["batch", 10],
        "masked_probs": ["batch", 10],
    }
    assert not model.graph.value_info


def test_forbidden_graphs_are_refused(tmp_path: Path, cls_file: Path) -> None:
    model = onnx.load(cls_file)
    with pytest.raises(ModelError, match=r"got opsets \{'': 20\}, expected 24"):
        check_graph(model, cls_file, 24)
    lstm = next(node for node in model.graph.node if node.op_type == "LSTM")
    lstm.input.append("lengths")
    next(a for a in lstm.attribute if a.name == "direction").s = b"reverse"
    model.graph.node.append(helper.make_node("NonZero", ["mask"], ["where"]))
    with pytest.raises(ModelError, match=r"NonZero, LSTM \(reverse\), LSTM with sequence_lens, expected none"):
        check_graph(model, cls_file, 20)
    with pytest.raises(ModelError, match="got an explainer of type Explainer, expected a GraphExplainer"):
        onnx_from_torch(toy_fused(), tmp_path / "model.onnx")


def test_compact_file_gives_the_same_bits(
    bundle: Bundle, sessions: Callable[[Path], Candidate], tmp_path: Path
) -> None:
    model = onnx.load(bundle.folder / "model.onnx")
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith(".float16")}
    assert "explanandum.base_model.esm.embeddings.word_embeddings.weight.float16" in stored
    size = (bundle.folder / "model.onnx").stat().st_size
    for tensor in stored.values():
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name.removesuffix(".float16")))
    nodes = [node for node in model.graph.node if not (node.op_type == "Cast" and node.input[0] in stored)]
    nodes = [node for node in nodes if not (node.op_type == "Cast" and node.input[0].endswith(".float16"))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "wide.onnx")
    assert (tmp_path / "wide.onnx").stat().st_size > 1.5 * size
    ids = batch_of([65, 7, 30])
    compact = sessions(bundle.folder / "model.onnx")(ids, predicted(ids))
    for name, value in sessions(tmp_path / "wide.onnx")(ids, predicted(ids)).items():
        np.testing.assert_array_equal(compact[name], value)
    _store_as_half(model)
    assert model.SerializeToString(deterministic=True) == (bundle.folder / "model.onnx").read_bytes()


# Parity


def run_torch(module: Fused) -> Candidate:
    return lambda ids, explain: torch_outputs(module, ids, explain)


def judged(candidate: Candidate, **options: Any) -> Any:
    return compare(candidate, toy_fused(), 70, lengths=(7, 65), batch_sizes=(1, 3), **options)


def test_parity_passes_the_reference_itself_and_reads_count() -> None:
    record = judged(run_torch(toy_fused()), reads=[[6, 7, 4106], [4102] * 100, []])
    assert (record.verdict, record.failures) == ("passed", ())
    assert (record.lengths, record.batch_sizes) == ((7, 65, 70), (1, 3))
    assert record.n_reads == 3 * (1 + 3 + 3) + 3  # three lengths of 1, 3 and again 3 rows, then the reads
    assert record.label_agreement == record.masked_label_agreement == (1.0, 1.0, 1.0)
    assert record.thresholds == FLOAT32
    assert record.tolerance_needed == max(record.max_abs_diff.values()) < 1e-5
    assert record.versions["torch"] == torch.__version__
    assert json.loads(json.dumps(record.to_json(), allow_nan=False))["n_tokens"] == record.n_tokens


def test_parity_finds_one_changed_weight() -> None:
    module = copy.deepcopy(toy_fused())
    with torch.no_grad():
        module.explainer.head.weight[0] += 0.05
    record = judged(run_torch(module))
    assert record.verdict == "failed"
    assert record.failures[0].startswith("mask: got a largest difference of")
    assert record.label_agreement == (1.0, 1.0, 1.0)
    assert 1e-5 < record.max_abs_diff["mask"] <= record.tolerance_needed == max(record.max_abs_diff.values())


def test_parity_finds_a_frozen_dimension() -> None:
    def frozen(ids: np.ndarray, explain: np.ndarray) -> Any:
        if ids.shape[1] != 7:
            raise RuntimeError("cannot broadcast 24 by 65\nat node 7")
        return torch_outputs(toy_fused(), ids, explain)

    record = judged(frozen)
    assert record.verdict == "failed"
    assert "batch of 3 x 65 tokens: got RuntimeError: cannot broadcast 24 by 65" in record.failures


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda o: o._replace(mask=o.mask[:, 1:]), "mask float32"),
        (lambda o: o._replace(explained_ids=o.explained_ids.astype(np.int64)), "explained_ids int64"),
        (lambda o: o._replace(mask=o.mask + np.float32(1e-6)), "mask values at padding"),
        (lambda o: o._replace(probs=o.probs * np.float32("nan")), "not finite"),
        (lambda o: o._replace(explained_ids=(o.explained_ids + 1) % 2), "labels of rank 0: got 0.00% agreement"),
    ],
)
def test_parity_finds_damaged_outputs(damage: Callable[[FusedOutput], FusedOutput], words: str) -> None:
    record = judged(lambda ids, explain: damage(torch_outputs(toy_fused(), ids, explain)))
    assert record.verdict == "failed"
    assert any(words in failure for failure in record.failures), record.failures
    json.dumps(record.to_json(), allow_nan=False)


def test_parity_finds_outputs_that_depend_on_padding() -> None:
    def leaky(ids: np.ndarray, explain: np.ndarray) -> Any:
        out = torch_outputs(toy_fused(), ids, explain)
        return out._replace(mask=out.mask * np.float32(1 - 2e-5 * (len(ids) == 1) * (ids[0, 0] == 3)))

    assert any(failure.startswith("padding:") for failure in judged(leaky).failures)


# The bundle


def test_bundle_holds_what_it_says(bundle: Bundle) -> None:
    assert bundle.verified("onnx", "float32") == bundle.folder / "model.onnx"
    assert (bundle.name, bundle.max_tokens, bundle.window_bp, bundle.pooling) == ("toy", MAX_TOKENS, 3000, "mean")
    assert bundle.training["explainer"] == {"recipe": "toy", "epochs": 0}
    assert (bundle.metrics, bundle.licence) == ({"area": 0.25}, "CC0-1.0")
    listed = {entry.path for entry in bundle.files} | {"bundle.json", "parity.json"}
    assert listed == {str(p.relative_to(bundle.folder)) for p in bundle.folder.rglob("*") if p.is_file()}
    record = bundle.parity["model.onnx"]
    assert (record["verdict"], record["lengths"]) == ("passed", [7, 65, 200, 512])


def test_exporting_the_bundles_own_checkpoint_gives_the_same_file(bundle: Bundle, tmp_path: Path) -> None:
    checkpoint = bundle.folder / "checkpoint"
    again = export_bundle(
        checkpoint / "explanandum", checkpoint / "explainer", tmp_path / "again", **SETTINGS, compact=True
    )
    assert again.files[0] == bundle.files[0]


def test_existing_output_is_refused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = save_toy_checkpoints(tmp_path / "checkpoints")
    with pytest.raises(OutputError, match="got an existing output, expected none"):
        export_bundle(*checkpoints, bundle.folder, **SETTINGS)
    (tmp_path / "precious").mkdir()
    with pytest.raises(OutputError, match="got something that is no bundle"):
        export_bundle(*checkpoints, tmp_path / "precious", **SETTINGS, overwrite=True)
    monkeypatch.setattr(export_module, "onnx_from_torch", exporting(onnx.load(bundle.folder / "model.onnx")))
    old = shutil.copytree(bundle.folder, tmp_path / "old")
    (tmp_path / "link").symlink_to(old)
    checkpoint = bundle.folder / "checkpoint"
    new = export_bundle(
        checkpoint / "explanandum",
        checkpoint / "explainer",
        tmp_path / "link",
        **{**SETTINGS, "name": "new"},
        overwrite=True,
    )
    assert (new.name, load_bundle(old).name) == ("new", "new")
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "link", "old", "precious"]


@pytest.mark.parametrize("foreign", ["notes.txt", "checkpoint/explainer/notes.txt", "empty/", "link"])
def test_overwrite_deletes_no_foreign_file(bundle: Bundle, tmp_path: Path, foreign: str) -> None:
    old = shutil.copytree(bundle.folder, tmp_path / "old")
    path = old / foreign
    if foreign == "link":
        path.symlink_to(bundle.folder)
    elif foreign.endswith("/"):
        path.mkdir()
    else:
        path.write_text("precious")
    before = {found: found.is_dir() or found.read_bytes() for found in old.rglob("*")}
    with pytest.raises(
        OutputError, match=f"{foreign.rstrip('/')}: got what bundle.json does not list.* Move it elsewhere"
    ):
        export_bundle(*save_toy_checkpoints(tmp_path), old, **SETTINGS, overwrite=True)
    assert {found: found.is_dir() or found.read_bytes() for found in old.rglob("*")} == before


def test_files_that_appear_while_a_bundle_is_made_stay(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, write = shutil.copytree(bundle.folder, tmp_path / "old"), exporting(onnx.load(bundle.folder / "model.onnx"))

    def write_and_note(module: Fused, path: Path, **options: Any) -> None:
        write(module, path)
        (old / "notes.txt").write_text("precious")

    monkeypatch.setattr(export_module, "onnx_from_torch", write_and_note)
    checkpoint = bundle.folder / "checkpoint"
    with pytest.raises(OutputError, match=r"notes\.txt: got what"):
        export_bundle(checkpoint / "explanandum", checkpoint / "explainer", old, **SETTINGS, overwrite=True)
    assert (old / "notes.txt").read_text() == "precious"
    assert load_bundle(old).verified("onnx", "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def exporting(model: onnx.ModelProto) -> Callable[..., None]:
    """Return what stands in for `onnx_from_torch` and writes this model."""

    def write(module: Fused, path: Path, **options: Any) -> None:
        onnx.save(model, path)

    return write


def change_one_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "explainer.head_weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def freeze_tokens(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 24


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [(change_one_weight, "mask: got a largest difference"), (freeze_tokens, "Got: 7 Expected: 24|InvalidArgument")],
)
def test_failed_parity_leaves_nothing_behind(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    model = onnx.load(bundle.folder / "model.onnx")
    sabotage(model)
    monkeypatch.setattr(export_module, "onnx_from_torch", exporting(model))
    checkpoint = bundle.folder / "checkpoint"
    with pytest.raises(ModelError, match=words) as raised:
        export_bundle(checkpoint / "explanandum", checkpoint / "explainer", tmp_path / "out" / "toy", **SETTINGS)
    assert "Nothing was written" in str(raised.value)
    assert not list((tmp_path / "out").iterdir())


def test_checkpoints_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    checkpoints = save_toy_checkpoints(tmp_path, num_classes=12)
    with pytest.raises(ModelError, match="got an Explainer of 12 classes, expected the 10 of"):
        export_bundle(*checkpoints, tmp_path / "toy", **SETTINGS)
    assert not (tmp_path / "toy").exists()


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def newer_version(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text()) | {"schema_version": 2}
    (folder / "bundle.json").write_text(json.dumps(content))


def newer_labels(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    del content["ranks"]
    (folder / "bundle.json").write_text(json.dumps(content))


def failed_record(folder: Path) -> None:
    content = json.loads((folder / "parity.json").read_text())
    content["files"]["model.onnx"]["verdict"] = "failed"
    (folder / "parity.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "got sha256 .*, expected .* changed or damaged"),
        (lambda folder: (folder / "model.onnx").unlink(), "got no such file, expected the one bundle.json lists"),
        (newer_version, "got schema_version 2, expected 1"),
        (lambda folder: (folder / "parity.json").unlink(), "got no passing record in parity.json"),
        (failed_record, "got no passing record in parity.json"),
        (newer_labels, "bundle.json, ranks: got nothing, expected a list of objects"),
        (lambda folder: (folder / "bundle.json").unlink(), "got no bundle.json, expected a bundle directory"),
    ],
)
def test_damaged_bundles_are_refused(
    bundle: Bundle, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = shutil.copytree(bundle.folder, tmp_path / "toy")
    damage(folder)
    with pytest.raises(ModelError, match=words):
        load_bundle(folder).verified("onnx", "float32")


def test_starter_exports_again_without_a_word(tmp_path: Path) -> None:
    assert main(["export", "-q", "-o", str(tmp_path / "again"), "-t", "1"]) == 0
    again, starter = load_bundle(tmp_path / "again"), load_bundle()
    assert again.ranks == starter.ranks
    assert again.metrics == starter.metrics
    assert again.parity["model.onnx"]["verdict"] == "passed"
    weights = [f for f in starter.files if f.path.endswith(".safetensors")]
    assert len(weights) == 2
    assert all(f in again.files for f in weights), "the same weights, to the bit"
