"""Draw docs/figures/trials.png: what each trial of a readout Explainer hides, and what that costs.

    python docs/make_trials.py

Every point is a training of benchmarks/results/readout/trials.txt, measured on the validation part; `start` is the
evidence alone, untrained, and the last one is shipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
RANKS = ("superkingdom", "phylum", "genus")
COLOURS = ("#0072b2", "#d55e00", "#009e73")
MEASURES = (
    ("kept", "masks, % of plain accuracy"),
    ("AUC", "chimera AUC"),
    ("rel", "relevant chunks, % of plain accuracy"),
)


def numbers(line: str, name: str) -> list[float]:
    """Return the numbers that stand after a name."""
    found = re.search(rf" {name} ([\d./]+)", line)
    assert found is not None, name
    return [float(text) for text in found.group(1).split("/")]


def main() -> None:
    lines = (DOCS.parent / "benchmarks" / "results" / "readout" / "trials.txt").read_text().splitlines()
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(12, 4), layout="constrained")
    for axis, (measure, label) in zip(axes, MEASURES, strict=True):
        for r, (rank, colour) in enumerate(zip(RANKS, COLOURS, strict=True)):
            points = [(numbers(line, "inv")[r], numbers(line, measure)[r]) for line in lines]
            axis.scatter(*zip(*points[:-1], strict=True), s=22, color=colour, alpha=0.5, label=rank)
            axis.scatter(*points[-1], s=110, color=colour, marker="*", edgecolor="black", linewidth=0.6)
        axis.set(xlabel="inverted masks, % of plain accuracy", ylabel=label)
    axes[0].legend(frameon=False)
    figure.savefig(DOCS / "figures" / "trials.png", dpi=100)


if __name__ == "__main__":
    main()
