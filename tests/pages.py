"""Pages of docs/ whose commands and Python are run as they stand, in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from wyr_batch.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return the code blocks of a page in these languages, as (language, text), in order."""
    text = (DOCS / page).read_text()
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def follow(page: str) -> dict[str, Any]:
    """Run all of a page in the current folder: `wyr-batch` commands, and Python in one namespace, which is returned.

    Other commands, such as pip, are left out.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (language, text) in enumerate(blocks(page, "bash", "python"), 1):
        if language == "python":
            exec(compile(text, f"{page}, block {number}", "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["wyr-batch"]:
                assert main(words[1:]) == 0, f"{page}: {line}"
    return names


def folder_with_examples(folder: Path) -> Path:
    """Return a folder that looks like a checkout to the pages."""
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder
