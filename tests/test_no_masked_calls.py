"""Without masked calls: the same masks and calls, from every runtime, with the second pass left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from exported_toy import DTYPES, MAX_TOKENS, models_of
from onnx import external_data_helper, helper, numpy_helper
from toy_engine import ToyEngine, run_toy
from wyr_batch.export import proof

import wyr_batch
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.cli import main
from wyr_batch.engines.onnx_cut import cut_model
from wyr_batch.engines.signature import OUTPUTS, EngineOutput, Int32s, outputs_of
from wyr_batch.errors import ModelError, UsageError
from wyr_batch.job.config import RunConfig
from wyr_batch.masks.file import open_masks

FOUR = outputs_of(False)


def ragged(n_tokens: int = 65) -> tuple[Int32s, Int32s]:
    """Return a batch of three rows, the last one short, and the classes that are predicted."""
    ids = np.random.default_rng(1).integers(6, 4102, (3, n_tokens)).astype(np.int32)
    ids[:, 0], ids[2, 20:] = 3, 1
    return ids, np.full((3, 3), -1, np.int32)


def needed_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of what the four outputs come from, worked out with the package onnx."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found, todo = set(), list(FOUR)
    while todo:
        if (node := maker.get(todo.pop())) is not None and node.name not in found:
            found.add(node.name)
            todo += node.input
    return [node.name for node in model.graph.node if node.name in found]


def test_the_cut_file_holds_what_the_four_outputs_need(exported: Bundle) -> None:
    path = exported.verified("onnx", "float32")
    whole, cut = onnx.load(path), onnx.load_model_from_string(cut_model(path, FOUR))
    onnx.checker.check_model(cut, full_check=True)
    assert [value.name for value in cut.graph.output] == list(FOUR)
    assert [node.name for node in cut.graph.node] == needed_nodes(whole)
    assert len(cut.graph.node) < len(whole.graph.node)
    assert (cut.graph.input, cut.graph.initializer) == (whole.graph.input, whole.graph.initializer)
    assert (cut.opset_import, cut.ir_version) == (whole.opset_import, whole.ir_version)
    with pytest.raises(ModelError, match=r"got 1 of the outputs mask, no_such, expected all"):
        cut_model(path, ("mask", "no_such"))


def test_weights_beside_a_file_are_found_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    from wyr_batch.engines.onnx import open_session

    weight = numpy_helper.from_array(np.full(1000, 2, np.float32), "weight")
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1000]) for name in OUTPUTS]
    nodes = [helper.make_node("Mul", ["x", "weight"], [name], name=name) for name in OUTPUTS]
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1000])
    model = helper.make_model(
        helper.make_graph(nodes, "toy", [value], outputs, [weight]), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    external_data_helper.convert_model_to_external_data(model, location="toy.onnx.data", size_threshold=0)
    path = tmp_path / "toy.onnx"
    onnx.save(model, path)
    session = open_session(path, 1, masked_calls=False)
    assert [value.name for value in session.get_outputs()] == list(FOUR)
    assert session.run(["mask"], {"x": np.ones(1000, np.float32)})[0].tolist() == [2.0] * 1000
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelError, match="expected an ONNX model"):
        open_session(path, 1, masked_calls=False)


WAYS = [("onnx", "float32"), ("onnx", "float16"), ("openvino", "float32"), ("torch", "float32"), ("torch", "float16")]


@pytest.mark.parametrize(("runtime", "dtype"), WAYS)
def test_every_runtime_gives_the_same_without_the_second_pass(exported: Bundle, runtime: str, dtype: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    ids, asked = ragged()
    request = EngineRequest("cpu", runtime, dtype, 1)
    with open_engine(exported, request) as whole, open_engine(exported, replace(request, masked_calls=False)) as cut:
        assert (whole.masked_calls, cut.masked_calls) == (True, False)
        wanted, found = whole.infer(ids, asked), cut.infer(ids, asked)
    assert found.masked_probs.shape == (3, 0)
    for name in FOUR:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-6, err_msg=name)


def test_a_bundle_proves_both_and_one_of_before_runs_the_second_pass(
    exported: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "toy")
    content = json.loads((folder / "parity.json").read_text())
    records = content.pop(proof.WITHOUT_MASKED_CALLS)
    assert {name.partition(" ")[0] for name in records} >= {"onnx", "torch"}
    for record in records.values():
        assert record["verdict"] == "passed"
        assert record["lengths"] == [7, 65, 200, MAX_TOKENS]
        assert record["masked_label_agreement"] == []
    (folder / "parity.json").write_text(json.dumps(content))
    before, request = load_bundle(folder), EngineRequest("cpu", "onnx", "float32", 1, masked_calls=False)
    with open_engine(before, request) as engine:
        assert engine.masked_calls
    assert "has not been proven without the second pass, so it is computed" in caplog.text
    with wyr_batch.load(folder, "cpu", "onnx", threads=1, masked_calls=False) as masker:
        (read,) = masker.predict("ACGTACGATTACA")
    assert (read.masked_labels, read.masked_probs.shape) == (None, (0,)), "what it computes is left out all the same"


def test_a_graph_that_is_cut_wrongly_is_found(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, lines = models_of(exported), []
    real = proof.runner_from_onnx

    def damaged(path: Path, threads: int | None, masked_calls: bool = True) -> Any:
        run = real(path, threads, masked_calls)

        def less(ids: Int32s, asked: Int32s) -> dict[str, Any]:
            out = run(ids, asked)
            return out if masked_calls else {**out, "mask": out["mask"] * np.float32(0.999)}

        return less

    monkeypatch.setattr(proof, "runner_from_onnx", damaged)
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    monkeypatch.setattr(proof, "FILES", {"float32": "model.onnx"})
    found, _ = proof.prove(exported.folder, reference, 70, DTYPES[:1], None, 1, lines.append)
    assert found["files"]["model.onnx"].verdict == "passed"
    record = found[proof.WITHOUT_MASKED_CALLS]["onnx float32"]
    assert record.verdict == "failed"
    assert record.failures[0].startswith("mask: got a largest difference of")
    assert lines[-1] == "comparing onnx float32 without masked calls with float32 torch"


class CutToy(ToyEngine):
    """The toy without a second pass."""

    def __init__(self) -> None:
        super().__init__()
        self.masked_calls = False

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        out = super()._infer(input_ids, explain_ids)
        return out._replace(masked_probs=out.masked_probs[:, :0])


@pytest.fixture
def reads(tmp_path: Path) -> Path:
    bases = np.random.default_rng(0).choice(list("ACGT"), 400)
    path = tmp_path / "reads.fasta"
    # Windowed, with windows that made another call; empty; two alike.
    path.write_text("".join(f">r{i}\n{''.join(bases[:n])}\n" for i, n in enumerate((400, 0, 60, 50, 60))))
    return path


def test_rows_without_masked_calls(reads: Path, tmp_path: Path) -> None:
    config = RunConfig((str(reads),), tmp_path / "full.parquet", rank_masks=True, top_k=2)
    cut = replace(config, output=tmp_path / "cut.parquet", no_masked_calls=True)
    run_toy(config)
    wyr_batch.run(cut, engines=[CutToy(), CutToy()])
    full, found = pq.read_table(config.output), pq.read_table(cut.output)
    left_out = [name for name in full.column_names if "_masked" in name]
    assert left_out == [f"{rank}_masked{end}" for rank in ("kingdom", "family") for end in ("", "_prob")]
    assert found.equals(full.drop_columns(left_out))
    assert open_masks(cut.output).footer["masked_calls"] is False
    assert open_masks(config.output).footer["masked_calls"] is True

    wyr_batch.run(replace(cut, overwrite=True), engines=[ToyEngine()])
    assert pq.read_table(cut.output).equals(found), "an engine that computes more gives the same"
    with pytest.raises(UsageError, match="got one without masked calls, expected masked calls"):
        wyr_batch.run(replace(config, overwrite=True), engines=[CutToy()])


def test_resume_refuses_the_other_kind(reads: Path, tmp_path: Path) -> None:
    config = RunConfig((str(reads),), tmp_path / "parts", dataset=True, max_reads=2, no_masked_calls=True)
    wyr_batch.run(config, engines=[CutToy()])
    with pytest.raises(UsageError, match="no_masked_calls: was True, is False"):
        run_toy(replace(config, no_masked_calls=False, resume=True))


def test_the_command_and_what_reads_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(__file__).parents[1] / "examples" / "reads.fastq.gz"
    masks = tmp_path / "masks.parquet"
    words = ["run", str(source), "-o", str(masks), "-n", "4", "-t", "1", "--no-masked-calls", "-x", "cpu"]

    def wyr(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 0
        return "".join(capsys.readouterr())

    log = wyr(*words, "--report", str(tmp_path / "clades.txt"), "--sequences", "-v")
    assert "has not been proven" not in log, "the starter has a proof"
    assert not [name for name in pq.read_schema(masks).names if "_masked" in name]
    assert (tmp_path / "clades.txt").stat().st_size
    assert "4 rows" in wyr("info", str(masks))
    assert "kept" not in wyr("view", str(masks))
    assert "_masked" not in wyr("convert", str(masks), "--to", "tsv")
    wyr("report", str(masks), "-o", str(tmp_path / "report.html"))
    assert "genus" in (tmp_path / "report.html").read_text()


def test_predictions_go_to_rows_and_pictures() -> None:
    masker, full = (wyr_batch.Masker(engine.bundle, engine) for engine in (CutToy(), ToyEngine()))
    reads = ["ACGTACGGATTACA" * 3, ""]
    done = masker.predict(reads)
    assert [call.masked_label for call in done[0].calls] == [None, None]
    assert [call.label for call in done[0].calls] == list(done[0].labels or ())
    rows = masker.to_arrow(done)
    assert not [name for name in rows.schema.names if "_masked" in name]
    assert rows.equals(full.to_arrow(full.predict(reads)).select(rows.schema.names))
    assert done[0]._repr_html_()


def test_tensorrt_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from wyr_batch import choose

    monkeypatch.setattr(choose, "chosen_gpus", lambda device: [])
    request = EngineRequest("cuda", "tensorrt", masked_calls=False)
    with pytest.raises(UsageError, match="--no-masked-calls: got --runtime tensorrt, expected torch or onnx"):
        choose.open_engine(ToyEngine().bundle, request)
