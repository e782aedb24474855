"""Snakemake wrapper for wyr-batch run."""

__author__ = "The wyr-batch developers"
__copyright__ = "Copyright 2026, the wyr-batch developers"
__license__ = "Apache-2.0"

from shlex import quote

from snakemake.shell import shell

model = snakemake.input.get("model", "")
summary = snakemake.output.get("summary", "")
extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=True, stderr=True)

model = f"--model {quote(model)}" if model else ""
summary = f"--json {quote(summary)}" if summary else ""

# --resume: parts of a job that was stopped are still beside its output.
# Exit code 3: all rows are there, but some reads failed. Their rows, the summary and the log say so.
shell(
    "wyr-batch run {snakemake.input.reads:q} --output {snakemake.output.masks:q} --resume"
    " --threads {snakemake.threads} {model} {summary} {extra} {log}"
    " || {{ code=$?; [ $code -eq 3 ] || exit $code; }}"
)
