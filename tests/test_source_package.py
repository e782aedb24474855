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
# The last version of a library without what is called here.
LAST_WITHOUT = {"pyarrow": ("add_key_value_metadata", "16.1.0")}


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


@pytest.mark.parametrize("library", LAST_WITHOUT)
def test_oldest_version_asked_for_has_what_is_called(library: str) -> None:
    name, last = LAST_WITHOUT[library]
    assert any(f".{name}(" in path.read_text() for path in (ROOT / "wyr_batch").rglob("*.py")), "no longer called"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = [one for text in project["dependencies"] if (one := Requirement(text)).name == library]
    assert last not in asked.specifier
