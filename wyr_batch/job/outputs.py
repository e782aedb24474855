"""What a run writes beside its rows, and whether it may: outputs checked before any work, and the summary."""

from __future__ import annotations

import json
from pathlib import Path

from wyr_batch._version import __version__
from wyr_batch.bundle import starter_path
from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import is_file, is_folder, shown_path
from wyr_batch.checks.outputs import FILE, FOLDER, TEXT, Output, Source, check_outputs
from wyr_batch.errors import OutputError
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats
from wyr_batch.rows.folder import check_output, parts_folder
from wyr_batch.rows.kreport import is_kreport
from wyr_batch.texts.arrow import is_dataset_folder


def check_run_outputs(
    config: RunConfig,
    *,
    json_path: Path | None = None,
    report_path: Path | None = None,
    log_path: Path | None = None,
    infile_list: Path | None = None,
) -> None:
    """Refuse a run whose outputs would harm something, before any work.

    Args:
        json_path, report_path, log_path: more files that the caller will write: a summary, reads by clade, and messages
            that are appended.
        infile_list: a file that names the inputs.
    Raises: UsageError, OutputError.
    """
    outputs = [Output("-o", config.output, FOLDER if config.is_dataset else FILE)]
    if not config.is_dataset:
        outputs.append(Output("-o, its parts in", parts_folder(config.output), FOLDER))
    outputs += [Output("--json", json_path, TEXT)] if json_path else []
    outputs += [Output("--report", report_path, TEXT)] if report_path else []
    outputs += [Output("--log", log_path, TEXT)] if log_path else []
    inputs = [path for path in config.inputs if path == "-" or not is_folder(path) or is_dataset_folder(path)]
    sources = [Source("the input", path) for path in inputs]
    sources.append(Source("the bundle", config.model or starter_path()))
    sources += [Source("the list of inputs", infile_list)] if infile_list else []
    check_outputs(outputs, sources)
    check_output(config.output, config.is_dataset, config.overwrite or config.resume)
    for flag, path, is_ours, what in (
        ("--json", json_path, _is_summary, "summary of a run"),
        ("--report", report_path, is_kreport, "report of this tool"),
    ):
        if path and not config.overwrite and is_file(path, OutputError) and not is_ours(path):
            raise OutputError(
                f"{flag} {shown_path(path)}",
                f"a file that exists and is no {what}",
                "a new name",
                "Use --overwrite to replace it.",
            )


def _is_summary(path: Path) -> bool:
    """True if a file is empty, or what --json wrote."""
    try:
        return path.stat().st_size == 0 or "statuses" in Fields.read(path, OutputError)
    except (OSError, OutputError):
        return False


def summary_json(stats: RunStats, config: RunConfig) -> str:
    """Return the text of --json: the counters of the run and the options it ran with."""
    inputs, output = [shown_path(path) for path in config.inputs], shown_path(config.output)
    options = {"inputs": inputs, "output": output, "threads": config.n_threads}
    return json.dumps({"version": __version__, **options, **stats.as_json()}, indent=2) + "\n"
