"""Every family exported: the fused graph gives what torch gives in ONNX Runtime and OpenVINO, of any shape of batch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_families import rows, toy
from wyr_batch.export.graph import graph_module
from wyr_batch.export.onnx_file import onnx_from_torch, runner_from_onnx

from wyr_batch.engines.openvino import OpenVinoGraph
from wyr_batch.models.explainer import Explainer, check_pair
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.models.fused import Fused
from wyr_batch.models.lstm import LstmConfig, LstmExplainer
from wyr_batch.models.readout import ReadoutConfig, ReadoutExplainer

# Each with the kind of Explainer it is exported with.
EXPORTED = {"roberta": "lstm", "deberta-v2": "lstm", "modernbert-mean": "readout"}
# Those whose graphs are made of parts of the others', and those that tests/test_family_runs.py exports.
ALIKE = {
    "bert-multi": "readout",
    "esm": "lstm",
    "dnabert": "readout",
    "bert": "lstm",
    "xlm-roberta": "readout",
    "distilbert": "readout",
    "electra": "readout",
}
ALIKE |= {"deberta-v3": "lstm", "modernbert": "lstm", "llama": "readout", "mistral": "lstm"}
# Layers that are traced once for all have weights of their own each. ModernBERT: one global, one local.
N_LAYERS = {"modernbert": 2, "modernbert-mean": 2, "deberta-v2": 1, "deberta-v3": 1}
LARGE = bool(os.environ.get("WYR_TEST_LARGE"))
LONGEST = 0  # of the model
BATCHES = ((9, 3, 20, 12), (LONGEST, 3, 40), (3,), (17, 17))


def explainer_of(model: Tokenised, kind: str) -> Explainer:
    """Return a seeded Explainer whose masks vary."""
    torch.manual_seed(1)
    n_classes = sum(model.n_classes)
    made: Explainer
    if kind == "lstm":
        made = LstmExplainer(
            LstmConfig(model.vocab_size, 8, hidden_size=6, num_layers=1, cell_states=False, num_classes=n_classes)
        )
    else:
        linear = model.pooling == "mean" and not hasattr(model, "model")
        made = ReadoutExplainer(
            ReadoutConfig(model.hidden_size, len(model.n_classes), n_classes, 8, 3, 1, evidence_start=linear)
        )
    with torch.no_grad():
        made.head.weight.normal_(0, 4 if kind == "lstm" else 2)
        for parameter in made.lstm.parameters() if isinstance(made, LstmExplainer) else ():
            parameter.mul_(3)
    check_pair(model, made.eval())
    return made


@pytest.mark.parametrize("name", [*EXPORTED, *(ALIKE if LARGE else ())])
def test_graph_gives_what_torch_gives(name: str, tmp_path: Path) -> None:
    model = toy(name, N_LAYERS.get(name, 3)).model
    explainer = explainer_of(model, (EXPORTED | ALIKE)[name])
    path = tmp_path / "model.onnx"
    onnx_from_torch(graph_module(model, explainer, model.max_tokens), path)
    reference = Fused(model, explainer).eval()
    runners = {"onnx": runner_from_onnx(path, 1), "openvino": OpenVinoGraph(path, "float32", 1, True).run}
    for lengths in BATCHES:
        ids = rows(model, tuple(length or model.max_tokens for length in lengths), pair=True).int()
        asked = torch.full((len(ids), len(model.n_classes)), -1, dtype=torch.int32)
        asked[0, 0] = 1
        with torch.no_grad():
            expected = reference(ids, asked)
        if lengths == BATCHES[0]:
            assert expected.mask[model.content(ids)].std() > 0.02
            assert (expected.probs - expected.masked_probs).abs().max() > 1e-3
        for runner in runners.values():
            outputs = runner(ids.numpy(), asked.numpy())
            given = outputs if isinstance(outputs, dict) else outputs._asdict()
            for field, value in expected._asdict().items():
                np.testing.assert_allclose(given[field], value.numpy(), atol=2e-5, err_msg=f"{field} {lengths}")
