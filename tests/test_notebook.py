"""Use from Python and notebooks: predictions as rows and pictures, other classes explained, and the page about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from toy_engine import ToyEngine

import wyr_batch
from wyr_batch.api import Masker, Prediction, run
from wyr_batch.engines.signature import Int32s
from wyr_batch.errors import InputError, UsageError
from wyr_batch.job.config import RunConfig
from wyr_batch.ranks import Rank

ROOT = Path(__file__).parents[1]
READS = {
    "plain": "ACGTTGCAACGTTGCAAC",
    "fails": "AAAAAAAACGT",
    "empty": "",
    "lower": "acgunNNryTTTGACCA",
    "windowed": "ACGTTG" * 30 + "GGC",
    "last": "TTTGACCANNGACCAGT",
}


class FailsOnMany(ToyEngine):
    """Fails on reads that hold the token of AAAAAA."""

    def _infer(self, input_ids: Int32s, explain_ids: Int32s):  # type: ignore[no-untyped-def]
        if (input_ids == 6).any():
            raise RuntimeError("bad luck")
        return super()._infer(input_ids, explain_ids)


@pytest.fixture(scope="module")
def masker() -> Masker:
    engine = FailsOnMany()
    return Masker(engine.bundle, engine)


@pytest.fixture(scope="module")
def predictions(masker: Masker) -> list[Prediction]:
    return masker.predict(READS.values())


def written(masker: Masker, folder: Path, **options: Any) -> Any:
    """Return the table that `run` writes for the reads."""
    source, output = folder / "in.fasta", folder / "out.parquet"
    source.write_text("".join(f">{name}\n{bases}\n" for name, bases in READS.items()))
    run(RunConfig((str(source),), output, **options), engines=[masker.engine])
    return pq.read_table(output)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_dtype": "uint8", "rank_masks": True, "sequences": True},
        {"mask_dtype": "float16", "top_k": 2, "confidence": 0.5},
    ],
    ids=str,
)
def test_predictions_become_the_rows_of_a_run(
    masker: Masker, predictions: list[Prediction], options: dict[str, Any], tmp_path: Path
) -> None:
    table = written(masker, tmp_path, **options)
    batch = masker.to_arrow(predictions, list(READS), **options)
    assert batch.schema == table.schema.remove_metadata()
    assert batch.to_pylist() == table.to_pylist()
    assert {"ok", "windowed", "failed", "empty"} == set(batch.column("status").to_pylist())
    assert masker.to_arrow([], **options).schema == batch.schema
    assert masker.to_arrow(predictions[3:5]).column("read_id").to_pylist() == ["read4", "read5"]


def test_rows_need_a_name_for_each_read_and_options_that_run_takes(
    masker: Masker, predictions: list[Prediction]
) -> None:
    with pytest.raises(InputError, match="got 1 ids, expected 6"):
        masker.to_arrow(predictions, ["one"])
    with pytest.raises(InputError, match="got other ranks, expected those of toy"):
        masker.to_arrow([replace(predictions[0], ranks=(Rank("genus", ("a", "b")),))])
    with pytest.raises(UsageError, match="--mask-dtype: got int8, expected one of float32"):
        masker.to_arrow(predictions, mask_dtype="int8")
    with pytest.raises(UsageError, match="--top-k: got 0"):
        masker.to_arrow(predictions, top_k=0)


def test_another_class_is_explained_as_run_explains_it(masker: Masker, tmp_path: Path) -> None:
    plain = masker.predict(READS.values())
    for explain in (["family=b"], ["kingdom=Plant", "family=c"]):
        found = masker.predict(READS.values(), explain=explain)
        table = written(masker, tmp_path, explain=tuple(explain), overwrite=True)
        assert masker.to_arrow(found, list(READS)).to_pylist() == table.to_pylist()
        assert any(not np.array_equal(a.mask, b.mask, equal_nan=True) for a, b in zip(plain, found, strict=True))
    (again,) = masker.predict(READS["plain"], explain="predicted")
    assert np.array_equal(again.mask, plain[0].mask)


@pytest.mark.parametrize("explain", ["genus=a", "family=z", ["family=a", "family=b"], ["predicted", "family=a"]])
def test_a_class_that_is_not_there_is_refused_as_run_refuses_it(
    masker: Masker, explain: str | list[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as of_run:
        written(masker, tmp_path, explain=(explain,) if isinstance(explain, str) else tuple(explain))
    with pytest.raises(UsageError) as of_predict:
        masker.predict("ACGT", explain=explain)
    assert str(of_predict.value) == str(of_run.value)


def test_a_prediction_says_what_it_is(masker: Masker, predictions: list[Prediction], tmp_path: Path) -> None:
    rows = written(masker, tmp_path).to_pylist()
    for read, row, bases in zip(predictions, rows, READS.values(), strict=True):
        assert read.sequence == bases.upper()
        assert [rank.name for rank in read.ranks] == ["kingdom", "family"]
        assert [(s.start, s.end) for s in read.segments] == [(s["start"], s["end"]) for s in row["segments"] or []]
        assert [s.mean for s in read.segments] == pytest.approx([s["mean"] for s in row["segments"] or []])
        assert read.mask_mean == pytest.approx(row["mask_mean"] or float("nan"), nan_ok=True)
        assert [call.label for call in read.calls] == [row["kingdom"], row["family"]]
        assert [call.masked_prob for call in read.calls] == [row["kingdom_masked_prob"], row["family_masked_prob"]]
        assert "\n" not in repr(read)
        shown = re.findall(r"<span class=wyr-block>(.*?)</span>", read._repr_html_())
        assert re.sub(r"</?i.*?>", "", "".join(shown)) == read.sequence
    row = rows[0]
    assert repr(predictions[0]) == (
        f"<Prediction read1: ok, kingdom {row['kingdom']} {row['kingdom_prob']:.2f}, family {row['family']} "
        f"{row['family_prob']:.2f}, mask mean {row['mask_mean']:.2f}, 3 tokens>"
    )
    assert re.fullmatch(r"<Prediction read2: failed, .*bad luck.*, 6 tokens>", repr(predictions[1]))
    assert repr(predictions[2]) == "<Prediction read3: empty, 0 tokens>"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the code of the page, in a folder with the example's reads."""
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    yield re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL)
    plt.close("all")


def test_the_code_of_the_page_runs(page: list[str], tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for block in page:
        exec(compile(block, "docs/notebook.md", "exec"), names)
    assert len(names["reads"]) == 10
    assert all(read.status == "ok" for read in names["reads"])
    assert (tmp_path / "ten_reads.png").stat().st_size > 10_000
    assert pq.read_table(tmp_path / "ten.parquet").num_rows == 10
    assert wyr_batch.Prediction is Prediction
