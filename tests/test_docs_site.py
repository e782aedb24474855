"""The documentation site builds without a warning and loads nothing from elsewhere; its tables name every field."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import DOCS, folder_with_examples, follow

from wyr_batch import RunConfig
from wyr_batch.bundle import starter_path
from wyr_batch.cli import main
from wyr_batch.ranks import Rank
from wyr_batch.rows.columns import STATUSES, RowBuilder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    strict = ["-W", "--keep-going", "-n", "-q", "-d", str(folder / "trees")]
    words = [sys.executable, "-m", "sphinx", *strict, str(DOCS), str(folder / "html")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_site_builds_without_warnings_and_has_every_page(site: Path) -> None:
    # A page that no table of contents leads to is a warning, and so is a link that leads nowhere.
    assert {path.stem for path in DOCS.glob("*.md")} <= {path.stem for path in site.glob("*.html")}


def test_pages_load_what_lies_beside_them_and_nothing_from_another_host(site: Path) -> None:
    for path in (*site.glob("*.html"), *site.rglob("*.css")):
        text = path.read_text()
        if path.suffix == ".css":
            found = re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", text)
        else:
            found = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"#]+)", text)
        for address in found:
            if not address.startswith("data:"):
                assert (path.parent / address.partition("?")[0]).exists(), f"{path.name}: {address}"


def test_files_outside_of_docs_are_pages_of_the_site(site: Path) -> None:
    assert "Killed twenty times" in (site / "benchmarks.html").read_text()
    assert 'href="benchmarks.html#fastq-parsers"' in (site / "running.html").read_text()
    assert 'id="fastq-parsers"' in (site / "benchmarks.html").read_text()


def test_api_page_has_the_fields_of_docstrings(site: Path) -> None:
    text = (site / "api.html").read_text()
    for name in ("load", "Masker", "Prediction", "run", "RunConfig"):
        assert f'id="wyr_batch.{name}"' in text
    assert "Returns: " not in text, "a field, not a word of the text before it"
    for field in fields(RunConfig):
        assert f"<strong>{field.name}" in text or f", {field.name}" in text, field.name


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which somebody has followed the tutorial."""
    folder = folder_with_examples(tmp_path_factory.mktemp("tutorial"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        follow("tutorial.md")
    return folder


@pytest.mark.parametrize("page", ["parquet.md", "api.md"])
def test_examples_run_on_the_masks_of_the_tutorial(page: str, tutorial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tutorial)
    follow(page)


def undocumented(page: str, names: Iterable[str]) -> list[str]:
    """Return the names that a page does not have as code."""
    text = (DOCS / page).read_text()
    return [name for name in names if f"`{name}`" not in text]


def all_names(value: Any) -> set[str]:
    """Return the names of an object and of those in it."""
    if isinstance(value, list):
        return set().union(*map(all_names, value))
    return set(value).union(*map(all_names, value.values())) if isinstance(value, dict) else set()


def test_summary_page_has_every_field(tmp_path: Path) -> None:
    words = ["run", str(DOCS.parent / "examples" / "reads.fastq.gz"), "-n", "40", "-q", "-o", str(tmp_path / "masks")]
    assert main([*words, "--json", str(tmp_path / "summary.json")]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["statuses"]) == {"ok"}
    assert not undocumented("summary-json.md", all_names(summary) - {"ok"})


def test_columns_page_has_every_column_status_and_field_of_the_footer(tutorial: Path) -> None:
    rows = RowBuilder([Rank("RANK", ("a", "b"))], rank_masks=True, top_k=2, files=("a", "b"), sequences=True)
    structs = [field.type.value_type for field in rows.schema if pa.types.is_list(field.type)]
    parts = [field.name for struct in structs if pa.types.is_struct(struct) for field in struct]
    assert not undocumented("parquet.md", [*rows.schema.names, *parts, *STATUSES])
    footer = pq.read_metadata(tutorial / "masks.parquet").metadata
    content = {key.decode(): json.loads(text) for key, text in footer.items() if key.startswith(b"wyr")}
    del content["wyr_run"]["options"], content["wyr_counts"]["statuses"], content["wyr_part"]["counts"]["statuses"]
    assert not undocumented("parquet.md", all_names(content))


def test_bundle_page_has_every_field() -> None:
    description, proofs = (json.loads((starter_path() / name).read_text()) for name in ("bundle.json", "parity.json"))
    inside = {name: description.pop(name) for name in ("training", "metrics")}
    assert not undocumented("bundle.md", all_names(description) | set(inside))
    records = [*proofs.pop("files").values(), *proofs.pop("runtimes").values()]
    for record in records:
        del record["versions"]
    assert not undocumented("bundle.md", set(proofs) | all_names(records) | {"files", "runtimes", "versions"})
