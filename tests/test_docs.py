"""README and docs name commands and options that exist, every command, and files that are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import parse

from wyr_batch.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
    ROOT / "examples" / "text" / "README.md",
    ROOT / "integrations" / "README.md",
    ROOT / "BENCHMARKS.md",
]


def commands_in(page: Path) -> list[str]:
    """Return the `wyr-batch ...` commands of a page's code blocks, one line each."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        found.group(0) for line in lines for found in [re.search(r"(?<!\S)wyr-batch .*", line.split(" #")[0])] if found
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_documents_parse(page: Path) -> None:
    for line in commands_in(page):
        parse(shlex.split(re.split(r" [|>] ", line)[0])[1:])


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"wyr-batch {name}" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_benchmarks_page_is_what_the_results_say() -> None:
    # With the base dependencies only: what the measurements themselves need cannot be imported.
    heavy = ("captum", "dnaio", "duckdb", "onnx", "onnxruntime", "openvino", "torch", "transformers")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy})); from benchmarks.render import render; print(render())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ROOT / "BENCHMARKS.md").read_text() + "\n" == done.stdout, f"run: python -m benchmarks.render {done.stderr}"


def test_commands_page_is_what_help_says(tmp_path: Path) -> None:
    # In a process of its own: click keeps the help option of whichever context a command was first shown in.
    script = [sys.executable, str(ROOT / "docs" / "make_commands.py"), "made.md"]
    subprocess.run(script, cwd=tmp_path, env=os.environ | {"COLUMNS": "60"}, check=True)
    made = (tmp_path / "made.md").read_text()
    assert (ROOT / "docs" / "commands.md").read_text() == made, "run: python docs/make_commands.py"
