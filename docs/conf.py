"""Settings of the documentation site: `sphinx-build -W -n docs build/docs`. Nothing is fetched while it is built."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

from wyr_batch._version import __version__

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "wyr-batch"
author = copyright = "The wyr-batch developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
default_role = "literal"  # what docstrings have between single backticks

nitpicky = True
# Types of other packages, which are described elsewhere, and of our inside, which is not.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|numpy|np|npt|pathlib|pyarrow|types|typing)\b.*"),
    (r"py:.*", r"(Any|Callable|Counter|Iterable|Path|Self|object|wyr_batch\.engines\.base\.Engine)"),
]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several attributes may share a line

html_theme = "furo"
html_title = f"wyr-batch {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1a7f37", "color-brand-content": "#1a7f37"},
    "dark_css_variables": {"color-brand-primary": "#4ac26b", "color-brand-content": "#4ac26b"},
}

# Pages that show a file from outside of docs/; in docs/ they are a line with a link, for readers on GitHub.
SHOWN = {
    "benchmarks": ROOT / "BENCHMARKS.md",
    "changelog": ROOT / "CHANGELOG.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "measuring": ROOT / "benchmarks" / "README.md",
    "texts-example": ROOT / "examples" / "text" / "README.md",
    "integrations": ROOT / "integrations" / "README.md",
}


def read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Links lead where they lead on GitHub: to pages of the site, else to the files themselves, as downloads."""
    text, folder = source[0], DOCS
    if page in SHOWN:
        app.env.note_dependency(SHOWN[page])
        text, folder = SHOWN[page].read_text(), SHOWN[page].parent
    pages = {path: f"{name}.md" for name, path in SHOWN.items()}

    def link(found: re.Match[str]) -> str:
        path = (folder / found["path"]).resolve()
        if path.is_dir():
            return found["text"]
        return f"[{found['text']}]({pages.get(path, os.path.relpath(path, DOCS))}{found['place'] or ''})"

    source[0] = re.sub(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#:]+)(?P<place>#[^)]*)?\)", link, text)


def read_docstring(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """`Returns: ...` and the like, which stand on one line in our docstrings, as the fields they are."""
    fields = {"Returns": "returns", "Raises": "raises", "Source": "source"}
    found: list[str] = []
    for line in lines:
        head, colon, rest = line.partition(": ")
        found.extend(["", f":{fields[head]}: {rest}"] if colon and head in fields else [line])
    lines[:] = found


def inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(str(tex2mathml(node.astext())))
    raise nodes.SkipNode


def block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring, priority=1)  # before napoleon
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
