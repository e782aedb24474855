"""The house: which folder may import which, no circles, and no room too large to take in at a look."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES, MOST_MODULES = 350, 12

# From the top down: a room may import those below it only. CONTRIBUTING.md draws the same order.
ORDER = (
    *(
        "__main__",
        "cli",
        "export",
        "train",
        "report",
        "convert",
        "aligned",
        "masks",
        "api",
        "cluster",
        "pipeline",
        "job",
        "rows",
        "explain",
        "choose",
        "proof",
    ),
    *(
        "draw",
        "engines",
        "models",
        "kernels",
        "tokens",
        "texts",
        "reads",
        "cache",
        "bundle",
        "vocabulary",
        "ranks",
        "checks",
        "host",
        "errors",
        "_version",
    ),
)


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    places = {"wyr_batch": ROOT / "wyr_batch", "wyr_batch.export": ROOT / "export", "wyr_batch.train": ROOT / "train"}
    found = {}
    for name, folder in places.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([name, *(part for part in parts if part != "__init__")])] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a module imports, anywhere in it, for type checkers only too."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module for alias in node.names}
    return found & known.keys() - {name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the names along a circle, none where there is none."""
    done: set[str] = set()

    def look(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for other in sorted(graph[name]):
                if found := look(other, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := look(name, []))), [])


def room(name: str) -> str:
    """Return the folder or module right below the package that a module lies in; the package itself is the top."""
    return name.split(".")[1] if "." in name else "__main__"


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_by_a_way_round(graph: dict[str, set[str]]) -> None:
    assert circle(graph) == []


def test_arrows_between_rooms_point_down(graph: dict[str, set[str]]) -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, others in graph.items():
        rooms[room(name)] |= {room(other) for other in others} - {room(name)}
    assert set(rooms) == set(ORDER)
    upward = [(name, other) for name in rooms for other in rooms[name] if ORDER.index(other) <= ORDER.index(name)]
    assert not upward


def test_nothing_but_the_command_line_imports_export_and_train(graph: dict[str, set[str]]) -> None:
    users = {room(name) for name, others in graph.items() if {room(o) for o in others} & {"export", "train"}}
    assert users <= {"export", "train"}, "the commands import them by name, when they are called"


def test_rooms_are_small() -> None:
    n_modules: dict[Path, int] = defaultdict(int)
    for path in modules().values():
        n_modules[path.parent] += 1
        assert len(path.read_text().splitlines()) <= MOST_LINES, path
    assert all(n <= MOST_MODULES for n in n_modules.values()), n_modules


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "wyr_batch", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("wyr-batch ")
