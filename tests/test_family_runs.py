"""Bundles of other families from folder to report: exported, run on files, and what comes out read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_family_graphs import explainer_of
from toy_families import READS, toy
from wyr_batch.export.write_bundle import export_bundle

import wyr_batch
from wyr_batch.bundle import Bundle
from wyr_batch.cli import main
from wyr_batch.errors import InputError, UsageError
from wyr_batch.job.config import RunConfig
from wyr_batch.models.checkpoints import save_explainer
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.models.fused import Fused

KINDS = {"bert": "lstm", "bert-multi": "readout", "dnabert": "readout", "mistral": "lstm", "esm": "lstm"}
TEXT = "w7 w8 w9 w10 w11 w12"


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Fused]:
    """Return a bundle of a tiny classifier of one layer and what it computes, in torch."""
    made = toy(request.param, n_layers=1)
    explainer = explainer_of(made.model, KINDS[request.param])
    if request.param == "bert":
        return request.getfixturevalue("exported_texts"), Fused(made.model, explainer).eval()
    folder = tmp_path_factory.mktemp(request.param)
    save_explainer(explainer, folder / "explainer", {})
    places = (made.folder, folder / "explainer", folder / "bundle")
    bundle = export_bundle(*places, name="toy", window_bp=1500, max_tokens=24, threads=1)
    return bundle, Fused(made.model, explainer).eval()


def source_of(bundle: Bundle, folder: Path) -> Path:
    """Write reads, proteins or texts: an ordinary one, one of several windows, one without tokens."""
    if bundle.input == "text":
        path = folder / "texts.csv"
        path.write_text(f'id,text\na,{TEXT}\nb,"{" ".join(f"w{5 + i % 50}" for i in range(70))}"\nc,\n')
    elif bundle.input == "proteins":
        path = folder / "proteins.fasta"
        path.write_text(f">a\nMKVLAAGIT\n>b\n{'MEEPQSDPSV' * 7}\n>c\n\n")
    else:
        path = folder / "reads.fasta"
        path.write_text(f">a\nACGTTGCA\n>b\n{'ACGT' * 30}\n>c\n\n")
    return path


def alone(fused: Fused, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return mask and probabilities of one window's tokens, computed by itself."""
    vocabulary = fused.explanandum.vocabulary
    row = torch.tensor([[*vocabulary.prefix, *ids, *vocabulary.suffix]])
    asked = torch.full((1, len(fused.explanandum.n_classes)), -1)
    with torch.no_grad():
        out = fused(row, asked)
    before = len(vocabulary.prefix)
    return out.mask[0, before : before + len(ids)].numpy(), out.probs[0].numpy()


def test_rows_are_those_of_each_input_alone(exported: tuple[Bundle, Fused], tmp_path: Path) -> None:
    bundle, fused = exported
    source, output = source_of(bundle, tmp_path), tmp_path / "masks.parquet"
    named = {"id_column": "id"} if bundle.input == "text" else {}
    stats = wyr_batch.run(RunConfig((str(source),), output, model=bundle.folder, threads=1, sequences=True, **named))
    assert stats.n_reads == 3
    rows = pq.read_table(output).to_pylist()
    assert [row["read_id"] for row in rows] == ["a", "b", "c"]
    assert rows[2]["status"] == "empty"
    wanted_status = "windowed" if rows[1]["n_tokens"] > bundle.window_tokens else "ok"
    assert rows[1]["status"] == wanted_status
    model = fused.explanandum
    assert isinstance(model, Tokenised)
    from tokenizers import Tokenizer

    ids = Tokenizer.from_str(model.tokenizer.json).encode(rows[0]["sequence"], add_special_tokens=False).ids
    mask, probs = alone(fused, ids)
    np.testing.assert_allclose(rows[0]["mask"], mask, atol=2e-5)
    for rank, classes in zip(bundle.ranks, model.slices, strict=True):
        best = int(probs[classes].argmax())
        assert rows[0][rank.name] == rank.labels[best]
        assert abs(rows[0][f"{rank.name}_prob"] - probs[classes][best]) < 2e-5
    for row in rows[:2]:
        assert row["token_end"][-1] <= row["length"] == len(row["sequence"])
        assert len(row["mask"]) == len(row["token_start"]) == len(row["token_end"]) == row["n_tokens"]
    footer = json.loads(pq.read_schema(output).metadata[b"wyr"])
    assert (footer["input"], footer["unit"]) == (bundle.input, bundle.unit)


def test_order_batches_and_runtimes_do_not_matter(exported: tuple[Bundle, Fused], tmp_path: Path) -> None:
    bundle, _ = exported
    texts = [TEXT[: 3 * i] for i in range(1, 6)] if bundle.input == "text" else ["MKVLAAGIT"[:i] for i in range(1, 9)]
    texts = texts if bundle.input != "reads" else ["ACGTTGCAAC"[:i] for i in range(3, 11)]
    found = {}
    for runtime in ("onnx", "openvino", "torch"):
        with wyr_batch.load(bundle.folder, "cpu", runtime, threads=1) as masker:
            found[runtime] = masker.predict(texts)
            turned = masker.predict(texts[::-1])[::-1]
        for one, other in zip(found[runtime], turned, strict=True):
            np.testing.assert_allclose(one.mask, other.mask, atol=1e-5)
            np.testing.assert_allclose(one.masked_probs, other.masked_probs, atol=1e-5)
    for runtime in ("onnx", "openvino"):
        for one, other in zip(found[runtime], found["torch"], strict=True):
            np.testing.assert_allclose(one.mask, other.mask, atol=2e-5)
            np.testing.assert_allclose(one.probs, other.probs, atol=2e-5)


def test_from_folder_to_report(
    exported: tuple[Bundle, Fused], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, _ = exported
    source, masks = source_of(bundle, tmp_path), tmp_path / "masks.parquet"
    page, rationales = tmp_path / "report.html", tmp_path / "rationales.jsonl"
    named = ["--id-column", "id"] if bundle.input == "text" else []
    commands = [
        ["run", str(source), "-o", str(masks), "-m", str(bundle.folder), "-t", "1", "-q", *named],
        ["report", str(masks), "-o", str(page)],
        ["view", str(masks), "a"],
        ["info", str(bundle.folder)],
    ]
    if bundle.input == "text":
        by_rank = ["--rank", bundle.ranks[0].name] if bundle.multi_label else []
        commands.append(["convert", str(masks), "--to", "eraser", "-o", str(rationales), *by_rank])
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
    assert bundle.ranks[0].name in page.read_text()
    if bundle.input == "text":
        assert json.loads(rationales.read_text().splitlines()[0])["annotation_id"] == "a"


def test_a_bundle_says_what_it_is(exported: tuple[Bundle, Fused]) -> None:
    bundle, fused = exported
    content = json.loads((bundle.folder / "bundle.json").read_text())
    assert content["schema_version"] == 2
    assert content["family"] == fused.explanandum.family == bundle.family
    assert bundle.input == ("reads" if bundle.family in READS else fused.explanandum.input)
    assert bundle.window_tokens + bundle.vocabulary.n_special == 24
    made = fused.explanandum.vocabulary
    assert replace(bundle.vocabulary, drawn=made.drawn) == made


def test_bases_say_nothing_of_windows_of_subwords(exported: tuple[Bundle, Fused], tmp_path: Path) -> None:
    bundle, _ = exported
    config = RunConfig((str(source_of(bundle, tmp_path)),), tmp_path / "m.parquet", model=bundle.folder, window_bp=60)
    with pytest.raises(UsageError, match=r"--window: got 60 bp, expected none: tokens differ in length"):
        wyr_batch.run(config)


def test_pairs_of_texts(exported_texts: Bundle, tmp_path: Path) -> None:
    made, bundle = toy("bert", n_layers=1), exported_texts
    source = tmp_path / "pairs.csv"
    source.write_text(f"text,other\nw7 w8,w9 w10 w11\n{TEXT * 3},{TEXT}\n")
    columns = {"text_column": "text", "pair_column": "other"}
    output = tmp_path / "masks.parquet"
    wyr_batch.run(RunConfig((str(source),), output, model=bundle.folder, threads=1, **columns))
    first, long = pq.read_table(output).to_pylist()
    assert first["n_tokens"] == 6
    assert first["mask"][2] == 1
    assert (long["status"], long["mask"]) == ("failed", None)
    with wyr_batch.load(bundle.folder, "cpu", threads=1) as masker:
        (pair,) = masker.predict("w7 w8", second="w9 w10 w11")
        rows = masker.to_arrow([pair], ["1"]).to_pylist()
        single = masker.predict("w7 w8")
        with pytest.raises(InputError, match="pairs and single texts, expected one of the two"):
            masker.to_arrow([pair, *single])
    assert (pair.sequence, pair.second_start) == ("w7 w8\nw9 w10 w11", 6)
    assert rows[0]["token_start"] == first["token_start"]
    np.testing.assert_allclose(rows[0]["mask"], first["mask"], atol=1e-5)
    np.testing.assert_allclose(pair.mask, first["mask"], atol=1e-5)
    model = made.model
    ids = torch.tensor([[2, 7, 8, 3, 9, 10, 11, 3]])
    with torch.no_grad():
        types = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
        logits = made.reference(input_ids=ids, token_type_ids=types).logits
        torch.testing.assert_close(model(ids), logits, atol=2e-5, rtol=0)
    assert first["label"] == bundle.ranks[0].labels[int(logits.argmax())]
