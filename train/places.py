"""Where trainings and evaluations may write: new folders, empty ones, and those they wrote themselves.

    explanandum/   base_model/, data_processor/, model/     explainer/   config.json, model.safetensors
    both           wyr.json; while it trains log.jsonl, checkpoints/, warm-start/
    evaluation/    evaluation.json, evaluation.md, figures/

wyr.json is written first, so that a training that was killed is known again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import exists, is_folder, reason_of, shown_path, write_error, write_whole
from wyr_batch.checks.outputs import FILE, FOLDER, Output, Source, check_outputs
from wyr_batch.errors import OutputError, WyrError

CHECKPOINTS = {
    "explanandum": ("base_model", "data_processor", "model"),
    "explainer": ("config.json", "model.safetensors"),
}
MADE = "wyr.json"
_BEGUN = ("log.jsonl", "checkpoints", "warm-start")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names what is written."""
    try:
        yield
    except OSError as problem:
        raise write_error(path, problem) from None


def check_training_folder(folder: Path, kind: str, sources: Sequence[Source]) -> None:
    """Refuse a folder where a training would harm something.

    Args:
        kind: 'explanandum' or 'explainer'.
        sources: what the training reads.
    Raises: UsageError, OutputError.
    """
    check_outputs([Output("-o", folder, FOLDER, makes_parents=True)], sources)
    for bundle in list(Path(os.path.realpath(folder)).parents)[:2]:  # it holds checkpoint/explainer, too
        if exists(bundle / "bundle.json", OutputError):
            raise OutputError(
                f"-o {shown_path(folder)}", f"a folder in the bundle {shown_path(bundle)}", "one outside it"
            )
    names = _names(folder)
    if names and not _is_training(folder, names, kind):
        raise OutputError(
            f"-o {shown_path(folder)}",
            f"a folder that no training of an {kind} made",
            "a new name, an empty folder or one of such a training",
            "Name another.",
        )


def _names(folder: Path) -> set[str]:
    if not is_folder(folder, OutputError):
        return set()
    try:
        return set(os.listdir(folder))
    except OSError as problem:
        raise OutputError(
            f"-o {shown_path(folder)}", f"'{reason_of(problem)}'", "a folder that can be listed"
        ) from None


def _is_training(folder: Path, names: set[str], kind: str) -> bool:
    """True if what is in a folder shows that a training of this kind wrote, or began, it."""
    if MADE not in names:  # begun by a version that did not say so at once
        of_models = {name for files in CHECKPOINTS.values() for name in files}
        return not names.isdisjoint(_BEGUN) and names.isdisjoint(of_models)
    try:
        content = Fields.read(folder / MADE, OutputError).content
    except WyrError:
        return False
    return content.get("begun") == kind or names.issuperset(CHECKPOINTS[kind])


def begin(folder: Path, kind: str) -> None:
    """Make a training's folder and say in it what it is, unless a finished one is there. Raises: OutputError."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not exists(folder / MADE, OutputError):
        write_whole(folder / MADE, json.dumps({"begun": kind}) + "\n")


def check_evaluation_folder(folder: Path, sources: Sequence[Source]) -> None:
    """Refuse a folder where an evaluation would harm something. Raises: UsageError, OutputError."""
    check_outputs([Output("-o", folder, FOLDER, makes_parents=True)], [])
    numbers, page, figures = (folder / name for name in ("evaluation.json", "evaluation.md", "figures"))
    files = [Output("-o", path, FILE, makes_parents=True) for path in (numbers, page)]
    check_outputs([*files, Output("-o", figures, FOLDER, makes_parents=True)], sources)
    advice = "Move it elsewhere, or name another folder."
    if not exists(numbers, OutputError):
        for path in (page, figures):
            if exists(path, OutputError):
                raise OutputError(
                    f"-o {shown_path(path)}",
                    f"something that no evaluation made, for there is no {numbers.name} beside it",
                    "nothing there",
                    advice,
                )
        return
    Fields.read(numbers, OutputError, advice).mapping("balanced_accuracy")
