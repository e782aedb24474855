"""The paper's figures 5, 6a, 6b, 7a and 7b, and the curves of this project, drawn from an evaluation's numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wyr_batch.checks.files import write_whole
from wyr_batch.errors import MissingExtraError

from ...places import writing
from .tables import words_of

GREEN, ORANGE, GREY = "#1a7f4b", "#e69f00", "#9aa0a6"
TOKENS_PER_LINE = 25
TEXT_TOKENS_PER_LINE = 14  # which are longer
MAX_POSITIONS_SHARE = 0.02


def check_matplotlib() -> None:
    """Set matplotlib up to draw into files. Raises: MissingExtraError without it."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("evaluate --output", "matplotlib", "report") from None
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "wyr"


def draw(evaluation: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every figure the evaluation has data for, as PNG and SVG.

    Args:
        evaluation: what `evaluate` returned, with `figure_data`.
        folder: made if missing.
    Returns: the files written.
    Raises: MissingExtraError without matplotlib; OutputError.
    """
    check_matplotlib()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    data = evaluation["figure_data"]
    words = words_of(evaluation)
    figures = {
        "figure_6a_mask_histogram": _histogram(data["mask_histogram"]),
        "figure_6b_mask_by_position": _by_position(data["mask_by_position"]),
        "figure_7a_segments_per_read": _counts(
            data["segments_per_read"], f"segments of a {words.row}", f"share of {words.rows}"
        ),
        "figure_7b_segment_tokens": _counts(data["segment_tokens"], "tokens of a segment", "share of segments"),
    }
    is_text = evaluation.get("input") == "text"
    for number, example in enumerate(data["examples"], 1):
        figures[f"figure_5_read_{number}"] = _read(example, TEXT_TOKENS_PER_LINE if is_text else TOKENS_PER_LINE)
    if "chimeras" in evaluation:
        figures["chimeras"] = _chimeras(evaluation["chimeras"])
    if "curves" in data:
        figures["deletion_insertion"] = _curves(data["curves"])
        figures["tradeoff"] = _tradeoff(evaluation)
    written = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            path, drawn = folder / f"{name}.{kind}", io.BytesIO()
            figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            write_whole(path, drawn.getvalue())
            written.append(path)
    return written


def _axes(width: float = 6.0, height: float = 3.6, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes if columns > 1 else axes[0]


def _histogram(histogram: Mapping[str, Any]) -> Any:
    figure, axes = _axes()
    counts = np.array(histogram["counts"], float)
    edges = np.linspace(0, 1, histogram["bins"] + 1)
    axes.stairs(counts / counts.sum(), edges, fill=True, color=GREEN)
    axes.set(xlabel="mask value", ylabel="share of tokens", xlim=(0, 1))
    return figure


def _by_position(stats: Mapping[str, Any]) -> Any:
    figure, axes = _axes()
    n = np.array(stats["n_reads"])
    # Positions that next to no read has would only show noise.
    shown = int((n >= max(2, MAX_POSITIONS_SHARE * n.max())).sum())
    place = np.arange(shown)
    mean, sd, least, most = (np.array(stats[name][:shown], float) for name in ("mean", "sd", "min", "max"))
    axes.fill_between(place, least, most, color="#cfe2f3", label="min to max", linewidth=0)
    axes.fill_between(place, mean - sd, mean + sd, color=ORANGE, alpha=0.5, label="mean ± sd", linewidth=0)
    axes.plot(place, mean, color="black", linewidth=1, label="mean")
    axes.set(xlabel="token", ylabel="mask value", ylim=(0, 1), xlim=(0, max(shown - 1, 1)))
    axes.legend(frameon=False, loc="lower right")
    return figure


def _counts(counts: list[int], xlabel: str, ylabel: str) -> Any:
    figure, axes = _axes()
    values = np.array(counts, float)
    total = max(values.sum(), 1)
    axes.bar(np.arange(len(values)), values / total, width=0.9, color=GREEN)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def _read(example: Mapping[str, Any], per_line: int) -> Any:
    """One read or text as a grid of tokens, coloured by its mask, above the same with the mask rounded."""
    from matplotlib.figure import Figure

    tokens, mask = example["tokens"], np.array(example["mask"])
    n_lines = -(-len(tokens) // per_line)
    figure = Figure(figsize=(0.56 * TOKENS_PER_LINE, 0.46 * n_lines + 1.0), layout="constrained")
    called = ", ".join(f"{rank} {label}" for rank, label in example["called"].items())
    figure.suptitle(called, fontsize=9)
    for axes, values, title in zip(
        figure.subplots(2, 1), (mask, (mask >= 0.5).astype(float)), ("mask", "rounded"), strict=True
    ):
        grid = np.zeros(n_lines * per_line)
        grid[: len(values)] = values
        axes.imshow(grid.reshape(n_lines, per_line), cmap="Greens", vmin=0, vmax=1.4, aspect="auto")
        for i, token in enumerate(tokens):
            line, column = divmod(i, per_line)
            axes.text(column, line, plain_text(token), ha="center", va="center", fontsize=6, family="monospace")
        axes.set_title(title, fontsize=8, loc="left")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def plain_text(token: str) -> str:
    """Return a token as matplotlib draws it letter by letter: a dollar sign begins no formula."""
    return token.replace("$", r"\$")


def _curves(curves: Mapping[str, Any]) -> Any:
    shares = curves["shares"]
    figure, axes = _axes(9, 3.6, 2)
    colours = (GREEN, ORANGE, "#0072b2", "#cc79a7", "#56b4e9")
    for one, kind in zip(axes, ("deletion", "insertion"), strict=True):
        for name, style in (("explainer", "-"), ("random", ":")):
            for (rank, values), colour in zip(curves[name][kind].items(), colours * len(curves), strict=False):
                one.plot(shares, values, style, color=colour, label=f"{rank}, {name}")
        hidden = "hidden" if kind == "deletion" else "shown"
        one.set(xlabel=f"share of tokens {hidden}, best first", ylabel="probability of the class", title=kind)
        one.set(ylim=(0, 1), xlim=(0, 1))
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _chimeras(chimeras: Mapping[str, Any]) -> Any:
    """AUC and mean mask inside and outside the right half, with intervals, a group a rank."""
    figure, (left, right) = _axes(9, 3.6, 2)
    place = np.arange(len(chimeras))

    def drawn(axes: Any, name: str, shift: float, colour: str, label: str) -> None:
        mean, low, high = (
            np.array([found[name][part] for found in chimeras.values()]) for part in ("mean", "low", "high")
        )
        axes.bar(place + shift, mean, 0.36, color=colour, label=label)
        axes.errorbar(place + shift, mean, [mean - low, high - mean], fmt="none", ecolor="black", capsize=3)

    drawn(left, "auc", 0.0, GREEN, "AUC")
    left.axhline(0.5, color=GREY, linestyle=":", label="chance")
    drawn(right, "inside", -0.19, GREEN, "in the half that is asked for")
    drawn(right, "outside", 0.19, ORANGE, "in the other half")
    for axes, ylabel in ((left, "AUC of a token's mask"), (right, "mean mask")):
        axes.set(xticks=place, xticklabels=list(chimeras), ylabel=ylabel, ylim=(0, 1))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _tradeoff(evaluation: Mapping[str, Any]) -> Any:
    figure, axes = _axes()
    points = sorted(evaluation["tradeoff"], key=lambda p: p["mask_mean"])
    mean = [p["mask_mean"] for p in points]
    for rank, colour in zip(points[0]["masks"], (GREEN, ORANGE, "#0072b2", "#cc79a7") * 8, strict=False):
        axes.plot(mean, [p["masks"][rank] for p in points], "o-", color=colour, markersize=3, label=f"{rank}, masks")
        inverted = [p["inverted_masks"][rank] for p in points]
        axes.plot(mean, inverted, "o:", color=colour, markersize=3, label=f"{rank}, inverted")
    axes.set(xlabel="mean mask, mask logits shifted", ylabel="balanced accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=7)
    return figure
