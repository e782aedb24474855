"""The ranks of a transformers classifier, from the labels in its config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wyr_batch.models.families.text import MULTI_LABEL
from wyr_batch.ranks import FIXED_COLUMNS, Rank, rank_columns

SINGLE = "label"
NO_YES = ("no", "yes")


def label_ranks(config: Any) -> list[Rank]:
    """Return one rank of all labels, or a rank for each label of a classifier of several at once.

    Labels that are empty or come twice get their number; a label whose columns another one has, or every output,
    is called `... (label)` or `... (label 3)`.

    Args:
        config: transformers' configuration, of which `id2label`, `num_labels` and `problem_type` are read.
    """
    labels = distinct([str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)])
    if config.problem_type != MULTI_LABEL:
        return [Rank(SINGLE, tuple(labels))]
    taken = {column.lower() for column in FIXED_COLUMNS}
    ranks = []
    for number, label in enumerate(labels):
        names = (label, f"{label} (label)", f"{label} (label {number})")
        name = next((n for n in names if not taken & {c.lower() for c in rank_columns(n)}), names[-1])
        taken |= {column.lower() for column in rank_columns(name)}
        ranks.append(Rank(name, NO_YES))
    return ranks


def distinct(labels: Sequence[str]) -> list[str]:
    """Return labels that differ and say something.

    >>> distinct(["spam", "", "spam"])
    ['spam (0)', 'label 1', 'spam (2)']
    """
    named = [label if label.strip() else f"label {number}" for number, label in enumerate(labels)]
    return [f"{label} ({number})" if named.count(label) > 1 else label for number, label in enumerate(named)]
