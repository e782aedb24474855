"""What `report` may write, and how many files it compares: checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wyr_batch.checks.files import exists, is_file, shown_path
from wyr_batch.checks.outputs import FILE, TEXT, Output, Source, check_outputs
from wyr_batch.errors import OutputError, UsageError
from wyr_batch.masks.file import MaskFile
from wyr_batch.report.multiqc import NAME_END

MOST_FILES = 8  # of which each has a colour of its own


def check_report_outputs(
    files: Sequence[MaskFile],
    output: Path,
    json_path: Path | None,
    multiqc_path: Path | None,
    reads: Sequence[str],
    overwrite: bool,
) -> None:
    """Refuse what would harm something. Raises: UsageError, OutputError."""
    if len(files) > MOST_FILES:
        advice = "Make several reports; --multiqc files of any number are shown together by MultiQC."
        raise UsageError("MASKS", f"{len(files)} files", f"{MOST_FILES} at most", advice)
    if len(kinds := {file.kind.name: file for file in files}) > 1:
        got = ", ".join(f"{name} in {file.shown}" for name, file in kinds.items())
        raise UsageError("MASKS", got, "files of one kind", "Make a report of each.")
    if multiqc_path and not multiqc_path.name.endswith(NAME_END):
        got = multiqc_path.name
        raise UsageError("--multiqc", got, f"a name that ends in {NAME_END}", "MultiQC knows its files by that.")
    named = [("-o", output, FILE), ("--json", json_path, TEXT), ("--multiqc", multiqc_path, TEXT)]
    outputs = [Output(flag, path, kind) for flag, path, kind in named if path is not None]
    sources = [Source("the masks", file.path) for file in files]
    sources += [Source("the reads", path) for path in reads]
    sources += [Source("the input", path) for file in files for path in _inputs(file) if exists(path)]
    check_outputs(outputs, sources)
    for one in outputs:
        if not overwrite and is_file(one.path, OutputError):
            raise OutputError(
                f"{one.flag} {shown_path(one.path)}",
                "a file that exists",
                "a new name",
                "Use --overwrite to replace it.",
            )


def _inputs(file: MaskFile) -> list[str]:
    found = file.footer.get("inputs")
    return [path for path in found if isinstance(path, str) and path != "-"] if isinstance(found, list) else []
