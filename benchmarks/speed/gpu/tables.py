"""The kit's results as tables."""

from __future__ import annotations

import statistics

from benchmarks.speed.gpu.machine import BUDGET_TOKENS, WINDOW_TOKENS
from benchmarks.tables import Json, markdown, percent


def table(data: Json) -> str:
    """Return what a page shows of the kit's JSON: of the parts that went to their ends, or as far as they did."""
    found = {name: part["results"] for name, part in data["parts"].items() if part.get("results")}
    device, torch = found["facts"]["device"]["name"], found["facts"]["torch"]
    about = (
        f"{device}, torch {torch['version']}, the published size with random weights, float16 unless a row says "
        "otherwise. MFU is of the 989 TFLOP/s that NVIDIA states for an H100."
    )
    missing = [f"{name} ({part['cut']})" for name, part in data["parts"].items() if "cut" in part]
    made = {"headline": whole_runs, "sweep": ready_batches, "changes": one_change, "split": pieces}
    tables = [make(found[name]) for name, make in made.items() if name in found]
    if missing:
        tables.append(f"Cut off: {', '.join(missing)}.")
    return "\n\n".join([about, *tables])


def whole_runs(headline: Json) -> str:
    """FASTQ.gz to Parquet."""
    head = ["`run`, FASTQ.gz to Parquet", "reads", "s", "reads/s", "Mb/s", "times the paper"]
    lines = []
    for name, run in headline.items():
        if name == "settings" or not run["correct"]:
            continue
        done, times = run["summary"], run.get("times_paper")
        bases_per_s = done["bases"] / run["seconds"] / 1e6
        rates = [f"{run['seconds']:.1f}", f"{run['reads_per_s']:,.0f}", f"{bases_per_s:.1f}"]
        lines.append([name, f"{done['reads']:,}", *rates, f"{times:.0f}" if times else ""])
    return markdown(head, lines)


def ready_batches(sweep: Json) -> str:
    """An engine alone."""
    head = ["batches that are ready: tokens a read", "tokens a batch", "in flight", "reads/s", "MFU"]
    lines = [
        [
            f"{row['n_tokens']}",
            f"{row['budget_tokens']:,}",
            f"{row['in_flight']}",
            f"{row['reads_per_s']:,.0f}",
            percent(row["mfu"]),
        ]
        for row in sweep["rows"]
        if row.get("verdict") == "passed"
    ]
    return markdown(head, lines)


def one_change(changes: Json) -> str:
    """Each change alone, where its calls were those of the form it was compared with."""
    head = ["one change to plain torch", "ms a batch before", "ms after", "speedup"]
    rows = {name: row for name, row in changes.items() if isinstance(row, dict) and "changed_s" in row}
    lines = [
        [
            name,
            *(f"{1000 * statistics.median(row[key]):.1f}" for key in ("as_it_is_s", "changed_s")),
            f"{row['speedup']:.2f}",
        ]
        for name, row in rows.items()
        if row["labels_that_agree"] == 1
    ]
    left = [name for name, row in rows.items() if row["labels_that_agree"] != 1]
    note = f"\n\nNot shown, for other calls: {', '.join(left)}." if left else ""
    return markdown(head, lines) + note


def pieces(split: Json) -> str:
    """Where the time of a batch goes."""
    n_rows = BUDGET_TOKENS // 256
    head = [f"a batch of {n_rows} reads of {WINDOW_TOKENS} tokens, one piece after the other", "ms"]
    return markdown(head, [[name, f"{ms:.2f}"] for name, ms in split["pieces_ms"].items()])
