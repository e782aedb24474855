"""Data, losses, and a whole small training: prepare, train both, resume, evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from toy_models import plain_pass, save_toy_checkpoints, seeded_ids, toy_explainer, toy_explanandum
from wyr_batch.train.data.batches import StepBatches, class_priors, sampling_weights
from wyr_batch.train.data.labelled import LabelledReads, choose_ranks, load_reads
from wyr_batch.train.data.markers import labels_of, prepare_markers
from wyr_batch.train.data.pieces import Pieces, cut_batch
from wyr_batch.train.data.prepare import RANKS as RANK_NAMES
from wyr_batch.train.data.prepare import split_of
from wyr_batch.train.fit.explainer import ExplainerTraining, TrainedExplainer
from wyr_batch.train.fit.explainer_loss import ExplainerLoss
from wyr_batch.train.fit.loop import LoopConfig, last_whole_checkpoint, train
from wyr_batch.train.fit.losses import (
    area_loss,
    bounds_loss,
    call_loss,
    classification_loss,
    entropy_loss,
    mean_area,
    variation_loss,
)
from wyr_batch.train.measure.metrics import balanced_accuracy

from wyr_batch.cli import main
from wyr_batch.errors import ModelError
from wyr_batch.models.checkpoints import load_explanandum, read_ranks
from wyr_batch.models.encoder import Encoder, EncoderConfig
from wyr_batch.ranks import Rank

SLICES = [slice(0, 2), slice(2, 5)]


def test_split_is_the_hash_of_the_header() -> None:
    import hashlib

    for header in ("GeneID:921702", "gi|345004010|ref|NC_015954.1|:c1336247-1335993", "x"):
        bucket = int(hashlib.sha1(header.encode()).hexdigest()[:8], 16) % 100
        expected = "test" if bucket < 2 else "validation" if bucket < 12 else "train"
        assert split_of(header) == expected


def test_labels_by_kind_of_header() -> None:
    known = {"NC_015954.1": ("Archaea", "P", "G")}
    assert labels_of("gi|345004010|ref|NC_015954.1|:c1336247-1335993", known.get) == known["NC_015954.1"]
    assert labels_of("NC_015954.1:1-20", known.get) == known["NC_015954.1"]
    assert labels_of("gi|156083978|ref|XM_001609423.1|", known.get) == ("Eukaryota", None, None)
    assert labels_of("GeneID:921702", known.get) == ("Viruses", None, None)
    assert labels_of("gi|1|gb|NOPE01.1|:1-5", known.get) is None


def write_markers(folder: Path, n: int = 240) -> Path:
    """Genera that differ in composition, with viruses and transcripts besides."""
    rng = np.random.default_rng(0)
    letters = {"A1": (0.7, 0.1, 0.1, 0.1), "A2": (0.1, 0.7, 0.1, 0.1), "B1": (0.1, 0.1, 0.1, 0.7)}
    lines = []
    for i in range(n):
        name = list(letters)[i % 3]
        sequence = "".join(rng.choice(list("ACGT"), int(rng.integers(60, 240)), p=letters[name]))
        header = f"gi|{i}|ref|{name}_{i}.1|:1-99"
        if i % 10 == 9:
            header, sequence = f"GeneID:{i}", "".join(rng.choice(list("ACGT"), 150))
        lines.append(f">{header}\n{sequence}\n")
    path = folder / "markers.fasta"
    path.write_text("".join(lines) + ">gi|9|gb|NOLINEAGE.1|:1-2\nACGT\n")
    return path


def lookup(accession: str) -> tuple[str, str, str] | None:
    if accession.startswith("NOLINEAGE"):
        return None
    return ("Archaea" if accession.startswith("A") else "Bacteria", f"phylum {accession[0]}", accession[:2])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    done = prepare_markers(write_markers(folder), folder / "markers.parquet", lookup)
    assert (done.kept, done.dropped["no lineage"], done.by_coarsest["Viruses"]) == (240, 1, 24)
    return folder / "markers.parquet"


def test_ranks_and_null_labels(data: Path) -> None:
    table = pq.read_table(data)
    ranks = choose_ranks(table, ("superkingdom", "phylum", "genus"), 20)
    assert ranks[2] == Rank("genus", ("A1", "A2", "B1"))
    assert ranks[0].labels == ("Archaea", "Bacteria", "Viruses")
    reads = load_reads(table, ranks, "train", headers=True)
    virus = [header.startswith("GeneID") for header in reads.headers]
    assert (reads.labels[virus, 1:] == -1).all()
    assert (reads.labels[~np.array(virus)] >= 0).all()
    weights = sampling_weights(reads.labels, null_leaf_weight=2.0)
    per_genus = [weights[reads.labels[:, 2] == g].sum() for g in range(3)]
    np.testing.assert_allclose(per_genus, 0.2)
    np.testing.assert_allclose(weights[virus].sum(), 0.4)
    priors = class_priors(reads.labels, weights, [3, 2, 3])
    np.testing.assert_allclose(priors, [0.4, 0.2, 0.4, 2 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3], atol=1e-6)


def test_pieces_are_cut_turned_and_tokenised() -> None:
    bases = np.frombuffer(b"ACGTACGTTTNACC", np.uint8)
    reads = LabelledReads(bases, np.array([0, 14]), np.array([[0, 1]]), np.array([True]))
    rows = np.zeros(2, np.int64)
    batch = cut_batch(reads, Pieces(rows, np.array([1, 1]), np.array([12, 12]), np.array([False, True])))
    forward = cut_batch(
        LabelledReads(np.frombuffer(b"GTNAAACGTACG", np.uint8), np.array([0, 12]), *_labels()),
        Pieces(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([12]), np.array([False])),
    )
    width = forward.input_ids.shape[1]
    assert batch.input_ids[1, :width].tolist() == forward.input_ids[0].tolist(), "the reverse complement"
    assert batch.frames.tolist() == [1, (1 + 12) % 3 + 3]


def _labels() -> tuple[np.ndarray, np.ndarray]:
    return np.array([[0, 1]]), np.array([True])


def test_batches_are_a_function_of_seed_and_step(data: Path) -> None:
    table = pq.read_table(data)
    ranks = choose_ranks(table, ("superkingdom", "phylum", "genus"), 20)
    reads = load_reads(table, ranks, "train")
    first, again = (StepBatches(reads, 40, batch_reads=4, window_bp=120, short_bp=30, seed=3) for _ in range(2))
    for step in (0, 15, 16, 39):
        assert torch.equal(first[step].input_ids, again[step].input_ids)
    assert not torch.equal(first[0].labels, first[20].labels) or not torch.equal(
        first[0].input_ids, first[20].input_ids
    )


def test_balanced_accuracy_leaves_nulls_out() -> None:
    labels, predicted = np.array([0, 0, 0, 1, -1, -1]), np.array([0, 0, 1, 1, 0, 1])
    assert balanced_accuracy(labels, predicted) == pytest.approx((2 / 3 + 1) / 2)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 9), st.integers(0, 99))
def test_losses_ignore_padding_and_equal_plain_loops(lengths: list[int], extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = 0.2, 0.6
    rows = [rng.random((2, n)).astype(np.float32) for n in lengths]
    others = [rng.random(n).astype(np.float32) for n in lengths]
    width = max(lengths) + extra
    masks = torch.zeros(len(lengths), 2, width)
    other = torch.zeros(len(lengths), width)
    valid = torch.zeros(len(lengths), width, dtype=torch.bool)
    areas, variations, bounds = [], [], []
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        masks[i, :, :n], other[i, :n], valid[i, :n] = torch.from_numpy(row), torch.from_numpy(others[i]), True
        target = row.max(axis=0)
        areas.append((target.mean(), others[i].mean()))
        variations.append((np.abs(np.diff(target)).sum() + np.abs(np.diff(others[i])).sum()) / n)
        per_class = []
        for mask in row:
            ordered = np.sort(mask)[::-1]
            least = np.arange(n) < np.round(np.float32(a) * n)
            most = np.arange(n) < np.round(np.float32(b) * n)
            per_class.append((np.maximum(least - ordered, 0) + np.maximum(ordered - most, 0)).mean())
        bounds.append(per_class)
    target = masks.amax(dim=1)
    np.testing.assert_allclose(mean_area(target, valid), [x for x, _ in areas], atol=1e-6)
    np.testing.assert_allclose(bounds_loss(masks, valid, a, b), bounds, atol=1e-5)
    has_class = torch.ones(len(lengths), 2, dtype=torch.bool)
    total = np.mean([x + y + np.mean(z) for (x, y), z in zip(areas, bounds, strict=True)])
    assert float(area_loss(target, other, masks, has_class, valid, a, b)) == pytest.approx(total, abs=1e-5)
    assert float(variation_loss(target, other, valid)) == pytest.approx(np.mean(variations), abs=1e-5)


def test_entropy_and_classification_terms() -> None:
    uniform = torch.zeros(1, 5)
    papers = -np.log(2) / 2 - np.log(3) / 3
    assert float(entropy_loss(uniform, SLICES)) == pytest.approx(papers, abs=1e-6)
    assert float(entropy_loss(uniform, SLICES, "log")) == pytest.approx(-2, abs=1e-6)
    decided = torch.tensor([[90.0, 0, 0, 0, 90]])
    assert float(entropy_loss(decided, SLICES)) == pytest.approx(0, abs=1e-6)
    targets = torch.tensor([[1, -1]])
    assert float(classification_loss(uniform, targets, SLICES)) == pytest.approx(np.log(2), abs=1e-6)


def test_call_term_minds_the_explained_class_only() -> None:
    targets = torch.tensor([[1, -1]])
    uniform = torch.zeros(1, 5)
    assert float(call_loss(uniform, targets, SLICES)) == 0
    for_it, for_another = torch.tensor([[0, 90.0, 0, 0, 0]]), torch.tensor([[90.0, 0, 0, 0, 0]])
    assert float(call_loss(for_it, targets, SLICES)) == pytest.approx(1, abs=1e-6)
    assert float(call_loss(for_another, targets, SLICES)) == 0


@pytest.mark.parametrize("lambda_other", [0.0, 1.0])
def test_masks_of_the_loss_equal_all_masks_at_once(lambda_other: float) -> None:
    explainer, model, ids = toy_explainer(), toy_explanandum(), seeded_ids()[:6]
    valid = ids != 1
    classes = torch.tensor([[0, 2, 5], [1, 3, 6], [0, 4, 9], [1, 2, 7], [0, 3, 8], [1, 4, 5]])
    has_class = torch.ones(6, 3, dtype=torch.bool)
    has_class[2, 1] = False
    targets = torch.where(has_class, classes - torch.tensor([0, 2, 5]), -1)
    loss = ExplainerLoss(model, ExplainerTraining(lambda_other=lambda_other), bf16=False)
    with torch.no_grad():
        every = torch.sigmoid(explainer.logits(ids, valid))
        own, other = loss._masks(TrainedExplainer(explainer), plain_pass(model, ids), targets)
    for row in range(6):
        explained = classes[row][has_class[row]].tolist()
        torch.testing.assert_close(own[row][has_class[row]], every[row][:, explained].T)
        rest = [c for c in range(10) if c not in explained]
        expected = every[row][:, rest].amax(dim=1) if lambda_other else torch.zeros(ids.shape[1])
        torch.testing.assert_close(other[row], expected)
    assert not own[2, 1].any()


@pytest.mark.filterwarnings("ignore")  # of transformers' own making
def test_nan_loss_stops_with_its_batch(data: Path, tmp_path: Path) -> None:
    reads = load_reads(pq.read_table(data), choose_ranks(pq.read_table(data), RANK_NAMES, 20), "train")
    model = torch.nn.Linear(1, 1)

    def losses(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(batch["input_ids"])
        value = model(torch.ones(1, 1)).sum()
        return {"fine": value, "broken": value * (float("nan") if len(seen) == 3 else 1.0)}

    seen: list[torch.Tensor] = []
    loop = LoopConfig(steps=5, evaluate_every=5)
    with pytest.raises(ModelError, match="step 2, loss term broken: got nan"):
        train(model, StepBatches(reads, 5, batch_reads=4), losses, lambda m: {"loss": 0.0}, tmp_path, loop, False)
    saved = torch.load(tmp_path / "bad-batch-2.pt", weights_only=True)
    assert torch.equal(saved["input_ids"], seen[2])


def test_checkpoint_cut_by_a_kill_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert last_whole_checkpoint(tmp_path / "none") is None
    for step, content in ((6, "{}"), (12, '{"global_step": 12}'), (100, '{"global_'), (200, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if content is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(content)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert capsys.readouterr().err.count("not whole, passed over") == 2


@pytest.mark.filterwarnings("ignore")  # of transformers' and accelerate's own making
def test_training_killed_and_resumed_has_the_same_loss_curve(data: Path, tmp_path: Path) -> None:
    explanandum, _ = save_toy_checkpoints(tmp_path, num_classes=10)
    # The toy's classes are not the data's: give the data the toy's names.
    ranks = read_ranks(explanandum)
    table = pq.read_table(data)
    for r, rank in enumerate(ranks):
        labels = pa.array([rank.labels[i % len(rank.labels)] for i in range(len(table))])
        table = table.set_column(3 + r, rank.name, labels)
    renamed = tmp_path / "data.parquet"
    pq.write_table(table, renamed)
    settings = tmp_path / "settings.toml"
    settings.write_text("warm_start_steps = 6\npatience = 99\n")

    def words(folder: str) -> list[str]:
        fixed = "--steps 24 --evaluate-every 6 --learning-rate 1e-2 --threads 1 --validation-reads 10 --batch-reads 8"
        given = ["--explanandum", str(explanandum), "-o", str(tmp_path / folder), "--config", str(settings)]
        return ["train", "explainer", str(renamed), *given, *fixed.split(), "--window", "240"]

    def curve(folder: str) -> dict[int, float]:
        lines = (tmp_path / folder / "log.jsonl").read_text().splitlines()
        return {e["step"]: e["eval_loss"] for e in map(json.loads, lines) if "eval_loss" in e}

    assert main(words("whole")) == 0
    run = [sys.executable, "-W", "ignore", "-c", "from wyr_batch.cli import entry; entry()"]
    process = subprocess.Popen([*run, *words("cut")], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 12") and "eval_loss" in line:
            break
    checkpoints = tmp_path / "cut" / "checkpoints"
    while not (checkpoints / "checkpoint-12").exists() and process.poll() is None:
        time.sleep(0.001)  # killed while it is being written, or soon after
    process.kill()
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert main([*words("cut"), "--resume"]) == 0
    assert curve("cut") == pytest.approx(curve("whole"), rel=1e-3)
    assert set(curve("cut")) == {6, 12, 18, 24}


@pytest.mark.filterwarnings("ignore")  # of transformers' own making
@pytest.mark.parametrize("balance", ["sampling", "weights", "none"])
def test_fine_tuning_starts_from_the_encoder_given(balance: str, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    sizes = EncoderConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    encoder = Encoder(sizes)
    bare, output = tmp_path / "bare", tmp_path / "explanandum"
    bare.mkdir()
    (bare / "config.json").write_text(sizes.to_json())
    save_file({f"esm.{k}": v for k, v in encoder.state_dict().items()}, bare / "model.safetensors")
    settings = tmp_path / "settings.toml"
    settings.write_text("gradient_accumulation = 2\nbatch_reads = 4\nlearning_rate = 1e-6\nmin_sequences = 20\n")
    fixed = f"--config {settings} --steps 2 --evaluate-every 2 --threads 1 --validation-reads 10"
    words = ["train", "explanandum", str(data), "-o", str(output), "--start-from", str(bare), "--balance", balance]
    assert main([*words, *fixed.split()]) == 0
    trained, _ = load_explanandum(output)
    assert trained.config == sizes
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(trained.encoder.state_dict()[key], value, rtol=0, atol=1e-4)
    assert json.loads((output / "wyr.json").read_text())["training"]["start_from"] == str(bare)


@pytest.mark.filterwarnings("ignore")  # of transformers' and accelerate's own making
def test_train_resume_and_evaluate(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explanandum, explainer = tmp_path / "explanandum", tmp_path / "explainer"
    common = ["--threads", "1", "--validation-reads", "20", "--batch-reads", "16", "--window", "240"]
    sizes = [
        "--hidden-size",
        "32",
        "--layers",
        "1",
        "--heads",
        "2",
        "--intermediate-size",
        "16",
        "--min-sequences",
        "20",
    ]
    words = ["train", "explanandum", str(data), "-o", str(explanandum), *common, *sizes, "--learning-rate", "1e-2"]
    assert main([*words, "--steps", "40", "--evaluate-every", "20"]) == 0
    log = [json.loads(line) for line in (explanandum / "log.jsonl").read_text().splitlines()]
    assert {"eval_loss", "eval_genus", "classification", "frame"} <= set().union(*log)
    assert main([*words, "--steps", "60", "--evaluate-every", "20", "--resume"]) == 0
    steps = [json.loads(line)["step"] for line in (explanandum / "log.jsonl").read_text().splitlines()]
    assert min(steps[len(log) :]) == 60, "went on from step 40"
    words = ["train", "explainer", str(data), "--explanandum", str(explanandum), "-o", str(explainer), *common]
    assert main([*words, "--steps", "20", "--evaluate-every", "10", "--learning-rate", "1e-2"]) == 0
    last = [json.loads(line) for line in (explainer / "log.jsonl").read_text().splitlines()]
    assert {"classification", "entropy", "area", "variation"} <= set().union(*last)
    capsys.readouterr()

    checkpoints = ["--explanandum", str(explanandum), "--explainer", str(explainer)]
    assert main(["evaluate", *checkpoints, str(data), "--split", "train", "-q"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["balanced_accuracy"]["genus"]["plain"] > 0.8
