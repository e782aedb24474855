"""The benchmark of texts on a GPU: its dry run on the CPU, and that it does without what a bare machine lacks."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.quality.text_measures import Classifier
from benchmarks.quality.text_methods import Rivals
from benchmarks.speed import gpu_texts
from benchmarks.speed.gpu import machine
from benchmarks.speed.gpu.machine import Machine, Skipped
from benchmarks.speed.made_texts import LEAST_TOKENS, MOST_TOKENS, made_texts, make_bundle

ROOT = Path(__file__).parents[1]
TINY = {"layers": 1, "width": 32, "heads": 4, "inner": 48}


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("texts")
    make_bundle(folder, **TINY)
    return folder / "checkpoint" / "explanandum"


def test_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_cpus", lambda: 1)
    kept: list[dict[str, Any]] = []
    gpu_texts.measure(Machine("cpu", True, tmp_path), gpu_texts.QUICK, kept.append)
    ours, *rivals = kept[-1]["rows"]
    assert (ours["method"], ours["correct"], ours["summary"]["reads"]) == ("explainer", True, gpu_texts.QUICK.texts)
    assert ours["compared"]["max_abs_diff"]["mask"] < 1e-5
    assert all(alone["seconds_per_text"]["median"] > 0 for alone in ours["engine_alone"].values())
    assert [row["method"] for row in rivals] == list(gpu_texts.RIVALS)
    for row in rivals:
        absent = [name for name in gpu_texts.NEEDS.get(row["method"], ()) if find_spec(name) is None]
        if absent:
            assert row["skipped"] == f"no package {absent[0]}"
        else:
            assert row["correct"] is True, row
            assert row["times_ours"]["min"] <= row["times_ours"]["median"] <= row["times_ours"]["max"]
    printed = gpu_texts.table({"asked_device": "cpu", **kept[-1]})
    assert f"| leave one out | float32 | {1e3 * rivals[3]['seconds_per_text']['median']:.3g} (" in printed


def test_texts_have_the_tokens_that_are_asked_for(classifier_folder: Path) -> None:
    texts = made_texts(2000, seed=0)
    assert texts == made_texts(2000, seed=0)
    counts = np.array([len(Classifier(classifier_folder).read(text)) for text in texts[:50]])
    assert LEAST_TOKENS <= counts.min() <= counts.max() <= MOST_TOKENS
    assert 20 < counts.mean() < 30
    assert len(set(texts)) == len(texts), "a run computes what repeats once"


def test_half_precision_scores_as_float32_does(classifier_folder: Path) -> None:
    text = made_texts(1, seed=1)
    found = []
    for dtype in (torch.float32, torch.float16):
        methods = Rivals(Classifier(classifier_folder, "cpu", dtype), n_samples=16, n_steps=4, seed=0)
        found.append([methods.scorer(name)(text, [1])[0] for name in ("lime", "leave_one_out", "attn_lrp")])
    for whole, half in zip(*found, strict=True):
        assert half.dtype == np.float64
        np.testing.assert_allclose(half, whole, atol=2e-3)
        assert np.abs(whole).max() > 0


def test_rows_of_a_batch_change_no_score(classifier_folder: Path) -> None:
    text, scores = made_texts(1, seed=2), []
    for batch_rows in (3, 64):
        methods = Rivals(Classifier(classifier_folder, batch_rows=batch_rows), n_samples=8, n_steps=2, seed=0)
        scores.append(methods.scorer("leave_one_out")(text, [0])[0])
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_captum_is_imported_without_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "captum").mkdir()
    (tmp_path / "captum" / "__init__.py").write_text("")
    (tmp_path / "captum" / "attr.py").write_text(
        "from typing import Union\n"
        "from matplotlib import colors, pyplot as plt\n"
        "from matplotlib.figure import Figure\n"
        "from mpl_toolkits.axes_grid1 import make_axes_locatable\n"
        "MAP = colors.LinearSegmentedColormap.from_list('a', ['b'])\n"
        "def draw() -> Union[str, Figure]: ...\n"
    )
    code = f"""
import importlib.machinery, sys
found = importlib.machinery.PathFinder.find_spec
def without(name, path=None, target=None):
    return None if name.partition(".")[0] in ("matplotlib", "mpl_toolkits") else found(name, path, target)
importlib.machinery.PathFinder.find_spec = without
sys.path.insert(0, {str(tmp_path)!r})
from benchmarks.speed.gpu_texts import import_captum
import_captum()
import_captum()
assert "captum.attr" in sys.modules and "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("captum") is not None, reason="captum is installed")
def test_without_captum_it_says_so() -> None:
    with pytest.raises(Skipped, match="no package captum"):
        gpu_texts.import_captum()


# What a machine with torch, transformers, numpy, pyarrow, click and rich does not have.
ABSENT = ("pysam", "onnxruntime", "onnxscript", "zlib_ng", "backports", "pandas", "accelerate", "matplotlib", "taxopy")


def test_a_bare_machine_can_import_it() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
import wyr_batch
wyr_batch.__path__.append({str(ROOT)!r})
import benchmarks.speed.gpu_texts, benchmarks.quality.text_methods
import wyr_batch.export.bundle_json, wyr_batch.export.tokens
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
