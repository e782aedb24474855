"""The exported graph against torch: rewritten in torch, and as an ONNX file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_toy import models_of, own_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from toy_models import (
    MAX_TOKENS,
    N_CLASSES,
    plain_pass,
    predicted,
    ragged,
    save_toy_checkpoints,
    token_batch,
    torch_outputs,
    toy_explainer,
    toy_explanandum,
    toy_fused,
)
from wyr_batch.export import onnx_file
from wyr_batch.export.graph import GraphLstm, graph_module
from wyr_batch.export.onnx_file import FORBIDDEN_OPS, _store_as_half, check_graph, onnx_from_torch, runner_from_onnx
from wyr_batch.export.scan import scan
from wyr_batch.export.write_bundle import export_bundle

from wyr_batch.bundle import Bundle, starter_path
from wyr_batch.errors import ModelError, ShapeError
from wyr_batch.models.fused import Fused, FusedOutput
from wyr_batch.models.lstm import linear_scan
from wyr_batch.proof.compare import Candidate

LENGTHS, BATCH_SIZES = (7, 65, 251), (1, 3, 16)


def assert_same(found: Any, wanted: FusedOutput, tolerance: float = 1e-5) -> None:
    for name, value in wanted._asdict().items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


CLS: dict[str, Any] = {"name": "cls", "window_bp": 1200, "max_tokens": 251, "threads": 1, "compact": True}


@pytest.fixture(scope="module")
def cls_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that pools by `<cls>` and explains without cell states, of one layer each."""
    folder = tmp_path_factory.mktemp("cls")
    models = {"explanandum": toy_explanandum("cls", num_layers=1), "explainer": toy_explainer(1, cell_states=False)}
    return export_bundle(*save_toy_checkpoints(folder, **models), folder / "cls", **CLS, half_checkpoint=True)


@pytest.fixture(scope="module")
def references(exported: Bundle, cls_bundle: Bundle) -> list[tuple[Path, Fused]]:
    """Two files, each with the models in torch that it was made from."""
    return [(bundle.folder / "model.onnx", models_of(bundle)) for bundle in (exported, cls_bundle)]


@pytest.mark.parametrize(("num_layers", "cell_states"), [(2, True), (1, True), (2, False), (1, False), (3, True)])
@pytest.mark.parametrize("length", [1, 2, 7, 65, 300])
def test_graph_explainer_equals_explainer(length: int, num_layers: int, cell_states: bool) -> None:
    explainer = toy_explainer(num_layers, cell_states)
    ids = torch.from_numpy(token_batch(ragged(4, length)))
    assert_class_logits_equal(explainer, ids, MAX_TOKENS)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_graph_explainer_takes_any_ragged_batch(lengths: list[int]) -> None:
    assert_class_logits_equal(toy_explainer(), torch.from_numpy(token_batch(lengths)), max(lengths))


def assert_class_logits_equal(explainer: Any, ids: torch.Tensor, max_tokens: int) -> None:
    valid = ids != 1
    classes = torch.arange(3 * len(ids)).reshape(len(ids), 3) % 10
    with torch.no_grad():
        seen = toy_explanandum(), plain_pass(toy_explanandum(), ids), classes
        wanted, found = explainer.class_logits(*seen), GraphLstm(explainer, max_tokens).class_logits(*seen)
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
    ids = token_batch([8, 3])
    found = torch_outputs(module, ids, predicted(ids))
    assert_same(found._asdict(), torch_outputs(toy_fused(), ids, predicted(ids)))
    with pytest.raises(ShapeError, match="got 9 tokens, expected at most 8"):
        torch_outputs(module, token_batch([9]), predicted(token_batch([9])))


def test_a_graph_of_short_rows_has_each_layers_own_weights_also_in_a_file_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)
    model, path = toy_explanandum(num_layers=3), tmp_path / "model.onnx"
    module = graph_module(model, toy_explainer(1), max_tokens=2)
    onnx_from_torch(module, path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 10 * path.stat().st_size
    assert not any("forward" in vars(layer) for layer in module.explanandum.layers())
    for lengths in ([2], [1, 2, 1]):
        ids = token_batch(lengths)
        wanted = torch_outputs(Fused(model, toy_explainer(1)).eval(), ids, predicted(ids))
        assert_same(runner_from_onnx(path, threads=1)(ids, predicted(ids)), wanted)


@pytest.fixture(scope="module")
def sessions() -> Callable[[Path], Candidate]:
    """Open each file once."""
    opened: dict[Path, Candidate] = {}

    def session(path: Path) -> Candidate:
        if path not in opened:
            opened[path] = runner_from_onnx(path, threads=1)
        return opened[path]

    return session


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("n_rows", BATCH_SIZES)
def test_file_equals_torch(
    references: list[tuple[Path, Fused]], sessions: Callable[[Path], Candidate], n_rows: int, length: int
) -> None:
    ids = token_batch(ragged(n_rows, length))
    for path, module in references:
        wanted = torch_outputs(module, ids, predicted(ids))
        assert_same(sessions(path)(ids, predicted(ids)), wanted)
        explain = (wanted.explained_ids + 1) % np.array(N_CLASSES, np.int32)
        explain[::2, 0] = -1
        other = torch_outputs(module, ids, explain)
        assert_same(sessions(path)(ids, explain), other)
        assert not np.array_equal(other.mask, wanted.mask)
    assert length < 65 or wanted.mask[ids != 1].std() > 0.1  # the toys must be worth comparing


def test_row_alone_equals_row_in_padded_batch(cls_bundle: Bundle, sessions: Callable[[Path], Candidate]) -> None:
    run = sessions(cls_bundle.folder / "model.onnx")
    lengths = [140, 1, 2, 30, 139]
    ids = token_batch(lengths)
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


def shapes_of(model: onnx.ModelProto) -> Any:
    return onnx.shape_inference.infer_shapes(model).graph.value_info


def types_of_ranges(model: onnx.ModelProto) -> list[int]:
    inferred = {value.name: value.type.tensor_type.elem_type for value in shapes_of(model)}
    return [inferred[node.output[0]] for node in model.graph.node if node.op_type == "Range"]


def test_file_states_the_contract_and_nothing_of_this_machine(exported: Bundle) -> None:
    path = exported.folder / "model.onnx"
    content = path.read_bytes()
    for trace in (b"/work", b"/tmp", b"site-packages", b"/home", b".py", str(Path.cwd()).encode()):
        assert trace not in content
    model = onnx.load(path)
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
    ranges = types_of_ranges(model)
    assert len(ranges) > 1
    assert set(ranges) == {onnx.TensorProto.INT64}, "positions count in whole numbers"


def test_starter_that_ships_counts_positions_in_whole_numbers() -> None:
    ranges = types_of_ranges(onnx.load(starter_path() / "model.onnx"))
    assert set(ranges) == {onnx.TensorProto.INT64}, "export it again: wyr-batch export -o DIR"


def test_forbidden_graphs_are_refused(tmp_path: Path, exported: Bundle) -> None:
    path = exported.folder / "model.onnx"
    model = onnx.load(path)
    other = copy.deepcopy(model)
    other.opset_import[0].version = 21
    with pytest.raises(ModelError, match=r"got opsets \{'': 21\}, expected 20"):
        check_graph(other, path)
    lstm = next(node for node in model.graph.node if node.op_type == "LSTM")
    lstm.input.append("lengths")
    next(a for a in lstm.attribute if a.name == "direction").s = b"reverse"
    model.graph.node.append(helper.make_node("NonZero", ["mask"], ["where"]))
    with pytest.raises(ModelError, match=r"NonZero, LSTM \(reverse\), LSTM with sequence_lens, expected none"):
        check_graph(model, path)
    with pytest.raises(ModelError, match="got an explainer of type LstmExplainer, expected one that a graph can hold"):
        onnx_from_torch(toy_fused(), tmp_path / "model.onnx")


def test_compact_file_gives_the_same_bits(
    exported: Bundle, sessions: Callable[[Path], Candidate], tmp_path: Path
) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith(".float16")}
    assert "explanandum.base_model.esm.embeddings.word_embeddings.weight.float16" in stored
    size = (exported.folder / "model.onnx").stat().st_size
    for tensor in stored.values():
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name.removesuffix(".float16")))
    nodes = [node for node in model.graph.node if not (node.op_type == "Cast" and node.input[0] in stored)]
    nodes = [node for node in nodes if not (node.op_type == "Cast" and node.input[0].endswith(".float16"))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "wide.onnx")
    assert (tmp_path / "wide.onnx").stat().st_size > 1.5 * size
    ids = token_batch([65, 7, 30])
    compact = sessions(exported.folder / "model.onnx")(ids, predicted(ids))
    for name, value in sessions(tmp_path / "wide.onnx")(ids, predicted(ids)).items():
        np.testing.assert_array_equal(compact[name], value)
    _store_as_half(model)
    assert model.SerializeToString(deterministic=True) == (exported.folder / "model.onnx").read_bytes()


def test_exporting_the_bundles_own_checkpoint_gives_the_same_file(cls_bundle: Bundle, tmp_path: Path) -> None:
    lines: list[str] = []
    again = export_bundle(*own_checkpoint(cls_bundle.folder), tmp_path / "again", **CLS, progress=lines.append)
    assert again.files[0] == cls_bundle.files[0]
    assert list(dict.fromkeys(line.split()[0] for line in lines)) == ["loading", "exporting", "comparing", "writing"]
    assert [path.name for path in tmp_path.iterdir()] == ["again"], "nothing is left beside it"
