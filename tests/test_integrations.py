"""What stands in integrations/ is about this version: its commands, its requirements, its files."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from commands import parse
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from wyr_batch import __version__
from wyr_batch.cli import COMMANDS

ROOT = Path(__file__).parents[1]
HERE = ROOT / "integrations"
FILES = sorted(path for path in HERE.rglob("*") if path.is_file())
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = WHOLE["project"]
IMAGES = ("docker/Dockerfile.cpu", "docker/Dockerfile.cuda")

# Where a command is called, and not only spoken of, and how often.
CALLS = {
    "bioconda/meta.yaml": 4,
    "docker/Dockerfile.cuda": 1,
    "nf-core/wyrbatch/run/main.nf": 2,
    "nf-core/wyrbatch/run/meta.yml": 2,
    "slurm/array.sbatch": 1,
    "slurm/ray.sbatch": 1,
    "snakemake/check.sh": 2,
    "snakemake/workflow/Snakefile": 2,
    "snakemake/wrapper/wrapper.py": 1,
}
CALL = re.compile(rf"""(?<!: )\bwyr-batch (--version\b|(?:{"|".join(COMMANDS)})(?: [-$"{{\w].*|$))""")
# What shells, Nextflow and Snakemake put into a command, by what is left of it here.
PLACEHOLDERS = (
    (r'"\$\{?@[^"]*"', "reads.fastq.gz -o masks.parquet"),
    (r"\$\{(?:args|paired|model)\}|\{(?:model|summary|extra|log)\}", ""),
    (r"\$\{?[\w.]*cpus\w*\}?|\{[\w.]*threads\}", "1"),
    (r"\$\([^)]*\)|\$?\{[^}]*\}|\$\w+", "x"),
)


def calls_in(text: str) -> list[list[str]]:
    """Return the words after `wyr-batch` of every call in a script, placeholders filled."""
    text = re.sub(r"\s*\\+\n\s*|\"\n\s*\"", " ", text)
    calls = [found.group(1) for line in text.splitlines() for found in [CALL.search(line)] if found]
    for pattern, value in PLACEHOLDERS:
        calls = [re.sub(pattern, value, call, flags=re.IGNORECASE) for call in calls]
    return [shlex.split(re.split(r" (?:\|\|?|2?>) ", call)[0]) for call in calls]


def recipe() -> dict[str, Any]:
    """Return the conda recipe as conda-build would read it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    template = environment.from_string((HERE / "bioconda" / "meta.yaml").read_text())
    rendered = template.render(PYTHON="python", pin_subpackage=lambda name, max_pin: f"{name} pinned to {max_pin}")
    content: dict[str, Any] = yaml.safe_load(rendered)
    return content


@pytest.mark.parametrize("name", CALLS)
def test_commands_parse(name: str) -> None:
    calls = calls_in((HERE / name).read_text())
    assert len(calls) == CALLS[name], calls
    for words in calls:
        parse(words)


def test_no_other_file_has_commands() -> None:
    scripts = [path for path in FILES if path.suffix not in (".md", ".log")]
    assert {str(path.relative_to(HERE)) for path in scripts if calls_in(path.read_text())} == set(CALLS)


def test_every_version_is_this_one() -> None:
    texts = {path: path.read_text() for path in FILES if path.suffix != ".log"}
    named = [
        (path.name, found)
        for path, text in texts.items()
        for found in re.findall(r"wyr[-_]batch(?: ?[=:]+|-)(\d[\d.]*\d)|\.version=\"([\d.]+)\"", text)
    ]
    assert len(named) >= 10
    assert {"".join(found) for _, found in named} == {__version__}, named
    assert recipe()["package"] == {"name": PROJECT["name"], "version": __version__}


def test_recipe_asks_for_what_the_package_asks_for() -> None:
    content = recipe()
    conda = {"zlib-ng": "python-zlib-ng"}
    wanted = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cpu"])]
    python, *others = content["requirements"]["run"]
    assert sorted(others) == sorted(f"{conda.get(one.name, one.name)} {one.specifier}" for one in wanted)
    assert python.split()[1].split(",")[0] == PROJECT["requires-python"]
    # The upper end is where what the package asks for on older Pythons only ends.
    (ends,) = {one.marker for one in wanted if one.marker}
    older = SpecifierSet(python.split()[1])
    assert all((f"3.{minor}" in older) <= ends.evaluate({"python_version": f"3.{minor}"}) for minor in range(11, 20))
    host = {text.split()[0]: text for text in content["requirements"]["host"]}
    assert host["python"] == f"python {PROJECT['requires-python']}"
    assert host["setuptools"] == "setuptools " + WHOLE["build-system"]["requires"][0].removeprefix("setuptools")
    assert content["build"]["entry_points"] == [f"{k} = {v}" for k, v in PROJECT["scripts"].items()]
    assert content["about"]["summary"] == PROJECT["description"]
    assert content["about"]["license"] == PROJECT["license"]
    assert [content["about"]["license_file"]] == PROJECT["license-files"]


@pytest.mark.parametrize("name", IMAGES)
def test_images_fit_the_package_and_nextflow(name: str) -> None:
    text = (HERE / name).read_text()
    bases = re.findall(r"^FROM python:([\d.]+)-slim-\w+", text, re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert bases[0] in SpecifierSet(PROJECT["requires-python"])
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert f'image.licenses="{PROJECT["license"]}"' in text
    assert "procps" in text
    assert not re.search("^ENTRYPOINT", text, re.MULTILINE), "Nextflow calls bash in the image"
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["1000"]


def test_images_are_built_from_what_the_package_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    folders = {place.split("/")[0] for place in WHOLE["tool"]["setuptools"]["package-dir"].values()}
    assert let_in == {"pyproject.toml", "constraints.txt", PROJECT["readme"], *PROJECT["license-files"], *folders}
    assert all((ROOT / name).exists() for name in let_in)


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in (".yml", ".yaml")], ids=lambda path: path.name)
def test_yaml_loads(path: Path) -> None:
    assert recipe() if path.parent.name == "bioconda" else yaml.safe_load(path.read_text())


def test_module_and_its_description_name_the_same() -> None:
    folder = HERE / "nf-core" / "wyrbatch" / "run"
    content, code = yaml.safe_load((folder / "meta.yml").read_text()), (folder / "main.nf").read_text()
    assert re.findall(r"emit: (\w+)", code) == list(content["output"])
    assert re.findall(r"topic: (\w+)", code) == list(content["topics"])
    assert f"process {content['name'].upper()} {{" in code
    (version,) = re.findall(r'eval\("([^"]*)"\)', code)
    assert version in content["topics"]["versions"][0][-1]


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in (".sbatch", ".sh")], ids=lambda path: path.name)
def test_scripts_are_bash(path: Path) -> None:
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_placeholders_are_those_the_readme_lists() -> None:
    pages = {path: set(re.findall(r"FILL_IN_[A-Z0-9]+", path.read_text())) for path in FILES}
    listed = pages.pop(HERE / "README.md")
    assert set().union(*pages.values()) == listed


def test_multiqc_finds_the_sample_in_the_names_that_are_given() -> None:
    workflow = (HERE / "snakemake" / "workflow" / "Snakefile").read_text()
    (rule,) = re.findall(r"^rule kreport:\n.*?output:\n\s*\"(.*?)\"", workflow, re.MULTILINE | re.DOTALL)
    pages = (ROOT / "docs" / "convert.md", ROOT / "docs" / "commands.md")
    named = [rule, *(name for page in pages for name in re.findall(r"\bSAMPLE[\w.]*\.\w+", page.read_text()))]
    assert len(named) > 2
    for name in named:
        sample = Path(name).name
        for end in (".log", ".html", ".txt", ".tsv", ".csv", ".report", ".kraken2"):  # fn_clean_exts of MultiQC 1.35
            sample = sample.split(end)[0]
        assert sample in ("SAMPLE", "{sample}"), name
