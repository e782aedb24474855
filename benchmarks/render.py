"""BENCHMARKS.md from the JSON in results/.

    python -m benchmarks.render

A section per file, in the order of `SECTIONS`; a file that is not there has none. The table is made by the script that
measures it. Rows that are not `correct` are not printed, and their number is said. Nothing is typed in: every figure is
read from a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks import kit
from benchmarks.limits import kill_and_resume, memory, other_suites, real_reads
from benchmarks.quality import rivals, text_rivals
from benchmarks.speed import (
    beside,
    cpu_ceiling,
    full_size,
    gpu_texts,
    headline,
    host,
    int8,
    kinds,
    no_masked_calls,
    run,
    stages,
    step,
    tokens,
)
from benchmarks.speed.gpu import tables as gpu
from benchmarks.tables import Json

RESULTS, PAGE = kit.ROOT / "benchmarks" / "results", kit.ROOT / "BENCHMARKS.md"

HEAD = """# Benchmarks

Made by `python -m benchmarks.render` from the JSON files in `benchmarks/results/`; each has the command, commit,
machine and versions that gave it. Before you compare:

- Timings are of a shared virtual machine with two cores unless a row says otherwise. Ratios were taken in
  alternation, repeat by repeat, and are what to trust. `median (min to max)`.
- A row is printed only if its outputs were compared and right (`correct` in the JSON).
- The starter has 1.2 M parameters. The paper's 86 reads/s on an H100 are for a classifier of about 50 M.
- "Other projects' test files", "Killed twenty times", "Memory over a long run" and "A step of the Explainer's training"
  were measured with the LSTM Explainer that the starter had before.
- "Host side" has a stand-in of no cost where the network would be: what a fast GPU would wait for.
"""

SECTIONS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "headline": ("Against the paper: `run` from FASTQ.gz to Parquet", headline.table),
    "gpu": ("On an NVIDIA GPU", gpu.table),
    "run": ("`run`, the bare graph and plain eager code", run.table),
    "kinds": ("The two kinds of Explainer", kinds.table),
    "full_size": ("The published size on a CPU", full_size.table),
    "no_masked_calls": ("What is not computed: masked calls, and reads that repeat others", no_masked_calls.table),
    "cpu_ceiling": ("How fast a CPU could be", cpu_ceiling.table),
    "real_reads": ("Real reads", real_reads.table),
    "other_suites": ("Other projects' test files", other_suites.table),
    "host": ("Host side alone", host.table),
    "stages": ("Stages of the host side", stages.table),
    "kill_and_resume": ("Killed twenty times", kill_and_resume.table),
    "memory": ("Memory over a long run", memory.table),
    "tokens": ("Tokeniser", tokens.table),
    "rivals": ("Explainer and rivals", rivals.table),
    "text_rivals": ("Explainer and rivals on texts", text_rivals.table),
    "gpu_texts": ("Explainer and rivals on texts, on a GPU", gpu_texts.table),
    "int8": ("int8 on a CPU", int8.table),
    "run_beside": ("`run` before and after other families than Nucleotide Transformer", beside.run_table),
    "export_beside": ("`export` before and after proof and trace were cut", beside.export_table),
    "step": ("A step of the Explainer's training", step.table),
}


def render(results: Path = RESULTS) -> str:
    """Return the page."""
    pieces = [HEAD]
    for name, (title, table) in SECTIONS.items():
        path = results / f"{name}.json"
        if path.exists():
            data = json.loads(path.read_text())
            where = f"`{data['command']}` on {data['cpu']}, {data['cpus_available']} cores, commit {data['commit'][:7]}"
            pieces.append(f"## {title}\n\n{table(data)}\n\n<sub>{where}</sub>\n")
    return "\n".join(pieces)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(kit.script_name(), description=__doc__, formatter_class=raw).parse_args()
    PAGE.write_text(render())


if __name__ == "__main__":
    main()
