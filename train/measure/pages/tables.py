"""An evaluation as Markdown: Table 1 beside the paper's, the masks' figures, faithfulness, trade-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Berman et al., Table 1: balanced accuracy in % of superkingdom, phylum, genus. Another classifier, other data.
PAPER = {
    "plain": (99.05, 97.39, 71.67),
    "masks": (98.39, 95.51, 69.88),
    "inverted_masks": (46.70, 28.21, 5.71),
    "rounded_masks": (76.42, 52.6, 40.86),
    "inverted_rounded_masks": (44.85, 26.20, 4.92),
    "average_relevant_chunk": (69.98, 49.92, 36.32),
    "average_not_relevant_chunk": (47.13, 31.68, 9.58),
}
PAPER_RANKS = ("superkingdom", "phylum", "genus")
PAPER_MASK_MEAN, PAPER_ABOVE_HALF = 0.73, 0.6728

BETTER_HIGH = ("comprehensiveness", "insertion_auc", "loss_under_complement", "region_comprehensiveness")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.1f} %"


def table_1(evaluation: Mapping[str, Any]) -> str:
    """Return Table 1, each rank beside the paper's column of the same name."""
    ranks = list(evaluation["balanced_accuracy"])
    in_paper = [rank for rank in ranks if rank in PAPER_RANKS]
    head = ["balanced accuracy", *ranks, *(f"paper: {rank}" for rank in in_paper)]
    rows = []
    for row, published in PAPER.items():
        own = [percent(evaluation["balanced_accuracy"][rank][row]) for rank in ranks]
        theirs = [f"{published[PAPER_RANKS.index(rank)]:.1f} %" for rank in in_paper]
        rows.append([row.replace("_", " "), *own, *theirs])
    kept = [
        [f"{row.replace('_', ' ')}, of plain", *(_share(evaluation, rank, row) for rank in ranks)]
        + [f"{100 * PAPER[row][i] / PAPER['plain'][i]:.1f} %" for i in map(PAPER_RANKS.index, in_paper)]
        for row in ("masks", "inverted_masks")
    ]
    return table(head, rows + kept)


def _share(evaluation: Mapping[str, Any], rank: str, row: str) -> str:
    values = evaluation["balanced_accuracy"][rank]
    return percent(values[row] / values["plain"]) if values["plain"] else ""


def faithfulness_table(measured: Mapping[str, Any]) -> str:
    """Return the measures of each explanation, ranks side by side; the arrow says which way is better."""
    explanations = [name for name in measured if name != "n_reads"]
    first = measured[explanations[0]]
    rows = []
    for measure, by_rank in first.items():
        arrow = "higher" if measure in BETTER_HIGH else "lower"
        for name in explanations:
            values = [f"{measured[name][measure][rank]:.3f}" for rank in by_rank]
            rows.append([f"{measure.replace('_', ' ')} ({arrow})", name, *values])
    return table(["measure (better)", "scores", *next(iter(first.values()))], rows)


def tradeoff_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Return kept accuracy against mean mask as the mask logits are shifted."""
    ranks = list(points[0]["masks"])
    head = ["logit shift", "mean mask", *(f"{rank}, masks" for rank in ranks), *(f"{rank}, inverted" for rank in ranks)]
    rows = [
        [f"{p['logit_shift']:+.1f}", f"{p['mask_mean']:.3f}"]
        + [percent(p[kind][rank]) for kind in ("masks", "inverted_masks") for rank in ranks]
        for p in points
    ]
    return table(head, rows)


def chimera_table(chimeras: Mapping[str, Any]) -> str:
    """Return where masks of chimeras lie, a line a rank, each figure with its 95 % interval."""

    def shown(value: Mapping[str, float]) -> str:
        return (
            f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})" if value["mean"] == value["mean"] else ""
        )

    names = ("auc", "inside", "outside")
    rows = [[rank, f"{found['n']:,}", *(shown(found[name]) for name in names)] for rank, found in chimeras.items()]
    return table(["rank", "chimeras", "AUC", "mean mask inside", "outside"], rows)


def controls_table(evaluation: Mapping[str, Any]) -> str:
    """Return how often the call stays on the other strand, if there is one, and after a shuffle."""
    mixed, words = evaluation["shuffled"], words_of(evaluation)
    rows = [
        [f"{words.letters} shuffled, plain", *map(percent, mixed["same_call"].values())],
        [f"{words.letters} shuffled, under the mask for the call", *map(percent, mixed["same_call_masked"].values())],
    ]
    if "reverse_complement" in evaluation:
        other = evaluation["reverse_complement"]["same_call"]
        rows.insert(0, ["other strand, plain", *map(percent, other.values())])
    return table([f"{words.rows} that keep their call", *mixed["same_call"]], rows)


def rationale_table(measured: Mapping[str, Any]) -> str:
    """Return how masks agree with what people marked, each figure with its 95 % interval."""
    names = {"token_f1": "token F1", "iou_f1": "IoU F1", "auprc": "AUPRC"}
    rows = [
        [name, *(f"{v['mean']:.3f} ({v['low']:.3f} to {v['high']:.3f})" for v in (measured[name][m] for m in names))]
        for name in ("explainer", "random")
    ]
    return table(["scores", *names.values()], rows)


class Words(NamedTuple):
    """What rows are called, one and several, and what they are made of."""

    row: str
    rows: str
    letters: str


_WORDS = {
    "reads": Words("read", "reads", "bases"),
    "proteins": Words("protein", "proteins", "residues"),
    "text": Words("text", "texts", "words"),
}


def words_of(evaluation: Mapping[str, Any]) -> Words:
    """Return what to call the rows of an evaluation."""
    return _WORDS[evaluation.get("input", "reads")]


def markdown(evaluation: Mapping[str, Any]) -> str:
    """Return the whole evaluation as a Markdown page."""
    e, words = evaluation, words_of(evaluation)
    labelled = ", ".join(f"{n:,} with a {rank}" for rank, n in e["n_labelled"].items())
    explained = f"classes called on the plain {words.row}" if e["explained"] == "predicted" else "true labels"
    window = f"{e['window_bp']:,} bp" if "window_bp" in e else f"{e['window_tokens']:,} tokens"
    parts = [
        "# Evaluation",
        f"{e['n_reads']:,} {words.rows} of the {e.get('split', 'given')} part ({labelled}), first {window} of each. "
        f"Explained: the {explained}. The paper's columns are of another classifier on other data.",
        "## Table 1",
        table_1(e),
        f"{words.rows.capitalize()} without a relevant chunk: {e['reads_without']['average_relevant_chunk']:,}; "
        f"without a not-relevant one: {e['reads_without']['average_not_relevant_chunk']:,}. They are left out of that "
        "row.",
        "## Masks",
        table(
            ["", "here", "paper"],
            [
                ["mean mask", f"{e['mask_mean']:.3f}", f"{PAPER_MASK_MEAN}"],
                ["share of tokens above 0.5", percent(e["mask_share_above_half"]), percent(PAPER_ABOVE_HALF)],
                [f"segments a {words.row}", f"{e['segments_per_read']:.2f}", "3.35"],
                ["tokens a segment", f"{e['segment_mean_tokens']:.1f}", "51.4"],
                ["sparseness (Gini)", f"{e['gini']:.3f}", ""],
            ],
        ),
        f"Blank {words.row}, 1 - entropy / log(classes), 0 is uniform: "
        + ", ".join(f"{rank} {value:.3f}" for rank, value in e["blank"].items())
        + ".",
    ]
    if e.get("rationales", {}).get("n_texts"):
        r = e["rationales"]
        parts += [
            "## Agreement with people",
            f"{r['n_texts']:,} {words.rows} with a rationale in their window ({r['n_without']:,} without), which "
            f"covers {percent(r['rationale_share'])} of the tokens. Token F1 and AUPRC are of tokens, IoU F1 of "
            "segments that share half of their tokens with a rationale. With 95 % bootstrap intervals.",
            rationale_table(r),
        ]
    if "chimeras" in e:
        parts += [
            "## Chimeras",
            "Two halves of different classes, asked for the class of either. AUC: how often a token of the right half "
            "has a higher mask than one of the other; 0.5 is chance. With 95 % intervals.",
            chimera_table(e["chimeras"]),
        ]
    if "faithfulness" in e:
        parts += ["## Faithfulness", f"{e['faithfulness']['n_reads']:,} {words.rows}."]
        parts += [faithfulness_table(e["faithfulness"]), "## Trade-off", tradeoff_table(e["tradeoff"])]
    if "shuffled" in e:
        strands = ""
        if "reverse_complement" in e:
            correlation = e["reverse_complement"]["mask_correlation"]
            strands = f"Correlation of the masks of both strands, base by base: {correlation:.3f}. "
        parts += [
            f"## The same {words.row} otherwise",
            f"{strands}Mean mask of shuffled {words.rows}, for the classes of the whole ones: "
            f"{e['shuffled']['mask_mean']:.3f}.",
            controls_table(e),
        ]
    if "sanity" in e:
        s = e["sanity"]
        parts += [
            "## Sanity check",
            f"Against {s['against']}: correlation of masks {s['mask_correlation']:.3f}, tokens that round alike "
            f"{percent(s['rounded_agreement'])}, mean difference {s['mask_mean_abs_difference']:.3f}.",
        ]
    return "\n\n".join(parts) + "\n"
