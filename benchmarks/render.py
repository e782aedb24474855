"""BENCHMARKS.md from the JSON in results/.

    python benchmarks/render.py

A table per file, in the order of `SECTIONS`; a file that is not there has none. Rows that are not `correct` are not
printed, and their number is said. Nothing is typed in: every figure is read from a file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "BENCHMARKS.md"
Json = dict[str, Any]

HEAD = """# Benchmarks

Made by `python benchmarks/render.py` from the JSON files in `benchmarks/results/`; each has the command, commit,
machine and versions that gave it. Before you compare:

- Timings are of a shared virtual machine with two cores unless a row says otherwise. Ratios were taken in
  alternation, repeat by repeat, and are what to trust. `median (min to max)`.
- A row is printed only if its outputs were compared and right (`correct` in the JSON).
- The starter has 1.2 M parameters. The paper's 86 reads/s on an H100 are for a classifier of about 50 M.
- "Host side" has a stand-in of no cost where the network would be: what a fast GPU would wait for.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def correct(rows: Sequence[Json]) -> tuple[list[Json], str]:
    """Return the rows to print, and a sentence on the others."""
    kept = [row for row in rows if row["correct"]]
    left = len(rows) - len(kept)
    return kept, f"\n\n{left} rows that were not correct are not shown." if left else ""


def spread(values: Json, form: str = ",.0f") -> str:
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def headline(data: Json) -> str:
    rows, note = correct(data["rows"])
    head = ["workload", "reads run", "reads/s", "Mbases/s", "tokens/s", "padding", "the whole", "where"]
    lines = []
    for row in rows:
        whole = f"{row['n_reads_whole']:,} reads: {hours(row['whole_s'])}{' (projected)' if row['projected'] else ''}"
        cells = [row["workload"], f"{row['n_reads']:,}", figure(row["reads_per_s"]), figure(row["mbases_per_s"])]
        where = f"{row['runtime']} {row['dtype']}, {row['device']}"
        lines.append([*cells, figure(row["tokens_per_s"]), f"{100 * row['padding_share']:.1f} %", whole, where])
    paper = f"The paper: {data['paper_reads_per_s']:.1f} reads/s on an H100, 20 min for its 103,638 reads"
    return f"Model: {data['model']}. {paper}, with its own classifier.\n\n{table(head, lines)}{note}"


def host(data: Json) -> str:
    rows, note = correct(data["rows"])
    head = ["reads", "reads/s", "Mbases/s", "CPU time a read", "padding", "peak memory"]
    lines = [
        [
            row["workload"],
            spread(row["reads_per_s"]),
            figure(row["mbases_per_s"]),
            f"{row['cpu_us_per_read']:.1f} µs",
            f"{100 * row['padding_share']:.1f} %",
            f"{row['peak_memory_mb']:.0f} MB",
        ]
        for row in rows
    ]
    return f"FASTQ.gz to Parquet, {data['threads']} threads.\n\n{table(head, lines)}{note}"


def stages(data: Json) -> str:
    rows, note = correct(data["rows"])
    names = list(rows[0]["cpu_us_per_read"])
    head = ["stage, µs of one core a read", *(row["workload"] for row in rows)]
    lines = [[name, *(f"{row['cpu_us_per_read'][name]:.2f}" for row in rows)] for name in names]
    return table(head, lines) + note


def run(data: Json) -> str:
    lines = [[name, spread(row["reads_per_s"])] for name, row in data["rows"].items()]
    reads = f"{data['n_reads']:,} reads of {data['read_bp']['mean']:.0f} bp"
    about = f"{reads}, model {data['model']}, {data['threads']} threads."
    ratios = (
        f"run / graph {data['run_over_graph']:.2f}, run / eager {data['run_over_eager']:.2f} (medians of the ratios)."
    )
    said = (
        "`run`: FASTQ.gz to Parquet. `graph`: the same session on ready batches. `eager`: EsmTokenizer, float32 torch."
    )
    return f"{about} {said}\n\n{table(['way', 'reads/s'], lines)}\n\n{ratios}"


def kills(data: Json) -> str:
    done = [row["reads_finished"] or 0 for row in data["kills"]]
    moments = sum(bool(row["partial"]) for row in data["kills"])
    return (
        f"{data['n_reads']:,} reads, killed with SIGKILL {len(done)} times at random ({moments} of them while a part "
        f"was being written) and resumed each time. The output equals that of an uninterrupted run, row for row: "
        f"**{'yes' if data['same_rows'] else 'no'}**. Reads finished at each kill: {', '.join(f'{n:,}' for n in done)}."
    )


def memory(data: Json) -> str:
    reads = f"{data['n_reads']:,} reads of 50 to 150 bp"
    about = f"{reads} through a pipe, lengths {data['order']}, {data['reads_per_s']:,} reads/s."
    points = [data["resident_mb_after_100000"], data["resident_mb_at_end"], data["resident_mb_most"]]
    lines = [[*(f"{point:.0f} MB" for point in points), f"{100 * data['growth']:+.1f} %"]]
    return f"{about}\n\n{table(['after 100,000 reads', 'at the end', 'most', 'growth'], lines)}"


def tokens(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = [
        [
            row["workload"],
            *(spread(row[f"{way}_reads_per_s"]) for way in ("wyr_batch", "esm_tokenizer")),
            spread(row["ratio"]),
        ]
        for row in rows
    ]
    return table(["reads", "wyr-batch, reads/s", "EsmTokenizer, reads/s", "ratio"], lines) + note


def real_reads(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = []
    for row in rows:
        lengths = f"{row['read_bp']['median']:,.0f}, {row['read_bp']['max']:,}"
        rates = [figure(row["reads_per_s"]), f"{row['bases'] / row['wall_s'] / 1e6:.2f}"]
        lines.append([row["file"], f"{row['reads']:,}", lengths, *rates, f"{100 * row['padding_share']:.1f} %"])
    about = "Nanopore reads of Debian's qcat-examples and MiSeq 16S reads of r-bioc-dada2, the starter, one run each."
    head = ["file", "reads", "median and longest, bp", "reads/s", "Mbases/s", "padding"]
    return f"{about}\n\n{table(head, lines)}{note}"


def other_suites(data: Json) -> str:
    outcomes = list(data["rows"][0]["outcomes"])
    counts = [[row["suite"], row["format"], *row["outcomes"].values()] for row in data["rows"]]
    counts.append(["all", "", *(sum(row["outcomes"][name] for row in data["rows"]) for name in outcomes)])
    lines = [[f"{cell or ''}" for cell in row] for row in counts]
    left, versions = data["left_out"], data["versions"]
    about = (
        f"FASTQ and FASTA against Biopython {versions['biopython']}, SAM, BAM and CRAM (without references) against "
        f"pysam {versions['pysam']}: names and bases, every file of these formats in the packages. Left out: "
        f"{left['copies']} copies, {left['too large']} above 50 MB. Packages: {', '.join(data['packages'].values())}."
    )
    verdicts = []
    for row in data["files"]:
        words = [row["first_difference"] or row["ours"], row["theirs"]]
        cells = [f"`{text}`".replace("|", "\\|") for text in (row["file"], *words)]
        verdicts.append([row["reason"], row["suite"], *cells])
    listed = table(["why", "suite", "file", "wyr-batch", "the other"], verdicts)
    return f"{about}\n\n{table(['suite', 'format', *outcomes], lines)}\n\nWhere the two disagree:\n\n{listed}"


def full_size(data: Json) -> str:
    lines = []
    for name, rate in data["reads_per_s"].items():
        over = data["times_eager"].get(name)
        graph = data["run_over_graph"].get(name)
        lines.append(
            [
                name.replace("_", " "),
                spread(rate, ".2f"),
                spread(over, ".2f") if over else "",
                spread(graph, ".2f") if graph else "",
            ]
        )
    checks = [
        f"{name.replace('_', ' ')}: {check.get('why', 'not correct')}"
        for name, check in data["checks"].items()
        if not check["correct"]
    ]
    about = (
        f"54 M parameters, 4 + 55 + 1,878 classes, random weights; {data['n_reads']} reads of {data['read_bp']:,} bp, "
        f"{data['threads']} threads, rounds in alternation."
    )
    left = f"\n\nNot shown: {'; '.join(checks)}." if checks else ""
    return f"{about}\n\n{table(['way', 'reads/s', 'times eager', 'run / graph'], lines)}{left}"


def cpu_ceiling(data: Json) -> str:
    lines = []
    for name, way in data["ways"].items():
        labels = f"{100 * min(way['label_agreement']):.1f} %"
        gflops = f"{way['gflops']:.0f}"
        lines.append(
            [name.replace("_", " "), spread(way["rows_per_s"], ".2f"), f"{way['times_eager']:.2f}", gflops, labels]
        )
    products = ", ".join(f"{name} {spread(rate, '.0f')} GFLOP/s" for name, rate in data["products"].items())
    about = (
        f"The published size, one batch of 16 x 251 tokens, {data['gflop_per_row']} GFLOP a row, rounds in "
        f"alternation. A matrix product alone: {products}. bfloat16 is timed here whether or not its calls agree; a "
        "bundle would not hold it below 99.5 %."
    )
    return f"{about}\n\n{table(['way', 'rows/s', 'times eager', 'GFLOP/s', 'labels, worst rank'], lines)}"


def int8(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = []
    for row in rows:
        plain, masked = (f"{100 * min(row[f'{kind}label_agreement']):.1f} %" for kind in ("", "masked_"))
        speed = [spread(row["rows_per_s"], ".1f"), f"{row['times_float32']:.2f}"]
        lines.append([row["model"], row["way"], plain, masked, f"{row['file_mb']:.1f} MB", *speed])
    about = (
        "Weights of every product as int8, ONNX Runtime, rows of 251 tokens. Labels are those of the worst rank that "
        "agree with float32 torch: 99 % would be needed, so int8 is not offered."
    )
    head = ["model", "way", "labels, plain", "labels, masked", "graph", "rows/s", "times float32"]
    return f"{about}\n\n{table(head, lines)}{note}"


def step(data: Json) -> str:
    lines = [[name, f"{seconds:.3f}"] for name, seconds in data["seconds_per_step"].items()]
    return "The starter, batches of 48 reads, fastest of three rounds.\n\n" + table(["", "s a step"], lines)


def rivals(data: Json) -> str:
    measures = {
        "comprehensiveness": "higher",
        "sufficiency": "lower",
        "deletion_auc": "lower",
        "insertion_auc": "higher",
    }
    lines = []
    for name, row in data["methods"].items():
        means = [f"{statistics.mean(row[measure]):.3f}" for measure in measures]
        cost = [f"{row['seconds_per_read']:.4f}", f"{row['times_the_explainer']:,.0f}"]
        lines.append([name.replace("_", " "), f"{row['reads']}", *cost, *means])
    head = [
        "method",
        "reads",
        "s a read, all ranks",
        "times the Explainer",
        *(f"{m.replace('_', ' ')} ({b})" for m, b in measures.items()),
    ]
    own, won = data["methods"]["explainer"], []
    for name in ("lime", "random"):
        other = data["methods"][name]
        better = [
            measure.replace("_", " ")
            for measure, best in measures.items()
            if (statistics.mean(own[measure]) > statistics.mean(other[measure])) == (best == "higher")
        ]
        won.append(f"{name} in {', '.join(better) or 'nothing'}")
    about = (
        f"Reads of the test part ({data['tokens']:,} tokens), the starter; each rank by its own scores, means over "
        "ranks. What each method is stands at the head of `rivals.py`."
    )
    return f"{about}\n\n{table(head, lines)}\n\nThe Explainer is better than {'; than '.join(won)}."


SECTIONS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "headline": ("Against the paper: `run` from FASTQ.gz to Parquet", headline),
    "run": ("`run`, the bare graph and plain eager code", run),
    "full_size": ("The published size on a CPU", full_size),
    "cpu_ceiling": ("How fast a CPU could be", cpu_ceiling),
    "real_reads": ("Real reads", real_reads),
    "other_suites": ("Other projects' test files", other_suites),
    "host": ("Host side alone", host),
    "stages": ("Stages of the host side", stages),
    "kill_and_resume": ("Killed twenty times", kills),
    "memory": ("Memory over a long run", memory),
    "tokens": ("Tokeniser", tokens),
    "rivals": ("Explainer and rivals", rivals),
    "int8": ("int8 on a CPU", int8),
    "step": ("A step of the Explainer's training", step),
}


def render(results: Path = RESULTS) -> str:
    """Return the page."""
    pieces = [HEAD]
    for name, (title, section) in SECTIONS.items():
        path = results / f"{name}.json"
        if path.exists():
            data = json.loads(path.read_text())
            where = f"`{data['command']}` on {data['cpu']}, {data['cpus_available']} cores, commit {data['commit'][:7]}"
            pieces.append(f"## {title}\n\n{section(data)}\n\n<sub>{where}</sub>\n")
    return "\n".join(pieces)


if __name__ == "__main__":
    PAGE.write_text(render())
