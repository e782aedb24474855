"""The source package is whole: README's commands and the tests can be run from it. What is asked for is new enough."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# Nothing of these is the project's: what git, tests, builds and editors leave in a checkout.
LEFT = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis", ".venv", "build", "dist")
# The last version of a library that does not do.
TOO_OLD = {
    "pyarrow": "16.1.0",  # ParquetWriter.add_key_value_metadata
    "onnxscript": "0.6.2",  # leaves its torch_lib among the opsets; 0.5 lacks what torch 2.13 imports
    "onnx-ir": "0.1.15",  # schemas, which the exporter of torch 2.13 calls
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names of the files in the source package, made from a copy of the checkout with a stray file."""
    pytest.importorskip("setuptools", minversion="77", reason="it builds the package")
    folder = tmp_path_factory.mktemp("source")
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT)
    stray = [copy / "tests" / "__pycache__" / "x.cpython-311.pyc", copy / "examples" / "masks.parquet"]
    for path in (*stray, copy / "docs" / "site" / "index.html", copy / "notes.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stray")
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.tar.gz")
    with tarfile.open(made) as file:
        return {member.name.partition("/")[2] for member in file if member.isfile()}


@pytest.mark.parametrize("folder", ["tests", "examples", "docs", "benchmarks", "integrations", "train", "wyr_batch"])
def test_folders_are_whole(packed: set[str], folder: str) -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not {"build", "site"} & set(path.parts)
    }
    assert len(there) > 4
    assert there <= packed, sorted(there - packed)


def test_readme_names_files_that_are_packed(packed: set[str]) -> None:
    text = (ROOT / "README.md").read_text()
    links = {target.rstrip("/") for target in re.findall(r"\]\(([^)#:]+)", text)}
    named = links | set(re.findall(r'src="([^"]+)"', text)) | {"constraints.txt", "examples/reads.fastq.gz", ".ci/run"}
    assert len(named) > 15
    missing = {name for name in named if name not in packed and not any(one.startswith(f"{name}/") for one in packed)}
    assert not missing


def test_nothing_stray_is_packed(packed: set[str]) -> None:
    stray = ("__pycache__", ".pyc", "masks.parquet", "docs/site", "notes.txt")
    assert not [name for name in packed if any(part in name for part in stray)]


@pytest.mark.parametrize("library", TOO_OLD)
def test_versions_that_do_not_do_are_not_asked_for(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["export"]]
    (asked,) = [one for text in texts if (one := Requirement(text)).name == library]
    assert TOO_OLD[library] not in asked.specifier
