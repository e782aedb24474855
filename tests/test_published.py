"""A classifier in the published layout, imported by directory, exported, and run: the probabilities are the published
code's own (see tests/data/README.md)."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from toy_models import toy_explainer

from wyr_batch.cli import main
from wyr_batch.models.checkpoints import load_explanandum, read_ranks, save_explainer

DATA = Path(__file__).parent / "data" / "microbert_tiny"
RUNTIMES = ("onnx", "openvino", "torch")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as its own training code lays it out, from the arrays that are committed."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "base_model").mkdir()
    (folder / "model").mkdir()
    shutil.copy(DATA / "config.json", folder / "base_model")
    shutil.copytree(DATA / "data_processor", folder / "data_processor")
    arrays = np.load(DATA / "model_and_expected.npz")
    tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(("base_model", "classif"))}
    key = "base_model.esm.embeddings.word_embeddings.weight"
    whole = torch.zeros(4107, tensors[key].shape[1])
    whole[torch.from_numpy(arrays["embedding_ids"])] = tensors[key]  # the other rows are not looked up
    tensors[key] = whole
    tensors["base_model.lm_head.bias"] = torch.ones(4107)
    save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_published_checkpoint_gives_the_published_probabilities(classifier: Path) -> None:
    model, ranks = load_explanandum(classifier)
    expected = np.load(DATA / "model_and_expected.npz")
    with torch.no_grad():
        probs = model.probabilities(model(torch.from_numpy(expected["input_ids"])))
    assert [len(rank.labels) for rank in ranks] == [2, 3, 5]
    for r, classes in enumerate(model.slices):
        np.testing.assert_allclose(probs[:, classes].numpy(), expected[f"probs_{r}"], atol=2e-5)


def test_older_pickle_in_list_form_names_the_same_ranks(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier / "data_processor", tmp_path / "data_processor")
    shutil.copy(DATA / "data_processor" / "legacy_list.pkl", tmp_path / "data_processor" / "data_processor.pkl")
    assert read_ranks(tmp_path) == read_ranks(classifier)


@pytest.fixture(scope="module")
def bundle(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    save_explainer(toy_explainer(1, cell_states=False), folder / "explainer", {"recipe": "toy"})
    words = ["export", "--explanandum", str(classifier), "--explainer", str(folder / "explainer")]
    words += ["--max-tokens", "128", "--window", "600", "--verify", str(DATA / "sequences.fasta")]
    assert main([*words, "-o", str(folder / "bundle"), "-q"]) == 0
    return folder / "bundle"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_run_gives_the_published_probabilities(runtime: str, bundle: Path, tmp_path: Path) -> None:
    if find_spec("onnxruntime" if runtime == "onnx" else runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    output = tmp_path / "masks.parquet"
    words = ["run", str(DATA / "sequences.fasta"), "-m", str(bundle), "--runtime", runtime, "--dtype", "float32"]
    assert main([*words, "-k", "5", "-o", str(output), "-q"]) == 0
    rows = pq.read_table(output).to_pylist()
    expected = np.load(DATA / "model_and_expected.npz")
    ranks = json.loads((bundle / "bundle.json").read_text())["ranks"]
    for i, row in enumerate(rows):
        for r, rank in enumerate(ranks):
            wanted = dict(zip(rank["labels"], expected[f"probs_{r}"][i], strict=True))
            found = {top["label"]: top["prob"] for top in row[f"{rank['name']}_top"]}
            assert found == pytest.approx(wanted, abs=2e-5), (row["read_id"], rank["name"])


def test_converted_masks_are_the_json_of_the_published_script(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks.parquet"
    words = ["run", str(DATA / "sequences.fasta"), "-m", str(bundle), "--runtime", "torch", "-k", "5"]
    assert main([*words, "-o", str(masks), "-q"]) == 0
    assert main(["convert", str(masks), "--to", "microbert-json", "-q"]) == 0
    made = capsys.readouterr().out
    expected = (DATA / "expected_predictions.json").read_text()
    number = re.compile(r"(?<=\"probability\": )\S+")
    assert number.sub("P", made).strip() == number.sub("P", expected).strip()
    found, wanted = ([float(text) for text in number.findall(text)] for text in (made, expected))
    assert found == pytest.approx(wanted, abs=2e-5)
    assert json.loads(made)[5][0]["topk_predictions"][0]["probability"] == found[50]
