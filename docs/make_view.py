"""Draw docs/figures/view.svg: what `wyr-batch view` shows in a terminal.

COLORTERM=truecolor wyr-batch view masks.parquet read0009 --color always --width 80 | python docs/make_view.py
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 80


def main(output: str = "docs/figures/view.svg") -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(sys.stdin.read().rstrip("\n")), soft_wrap=True)
    svg = console.export_svg(title="wyr-batch view", unique_id="view")
    Path(output).write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
