"""Change one value in a file of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MISSING = object()


def change(path: Path, place: tuple[str | int, ...], value: Any) -> None:
    """Put a value into a JSON file, or remove what is there if it is MISSING; an empty place is all of it."""
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if not place:
        content = value
    elif value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    path.write_text(json.dumps(content))
