"""What the rows of a masks file are, and the words that pages, pictures and messages have for them.

Nothing else tells reads, proteins and texts apart: who writes a sentence takes its nouns from here.
"""

from __future__ import annotations

from dataclasses import dataclass

NO, YES = "no", "yes"  # the labels of each rank of a multi-label classifier


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of input.

    Attributes:
        name: as the footer of a masks file has it under `input`.
        row, rows: what a row is called; letter, letters: what its sequence is made of; content: all of them.
        unit: of lengths and places, as the footer has it under `unit`.
        is_text: drawn as running text, and not in blocks of ten letters.
    """

    name: str
    row: str
    rows: str
    letter: str
    letters: str
    content: str
    unit: str
    is_text: bool = False

    def count(self, n: int) -> str:
        """Return a number of rows in words.

        >>> TEXTS.count(1), READS.count(1200)
        ('1 text', '1,200 reads')
        """
        return f"{n:,} {self.row if n == 1 else self.rows}"

    def length(self, n: int) -> str:
        """Return a length in words.

        >>> TEXTS.length(1), READS.length(250)
        ('1 character', '250 bp')
        """
        return f"{n:,} {self.letter if self.is_text and n == 1 else self.unit}"


READS = Kind("reads", "read", "reads", "base", "bases", "bases", "bp")
PROTEINS = Kind("proteins", "protein", "proteins", "residue", "residues", "residues", "aa")
TEXTS = Kind("text", "text", "texts", "character", "characters", "text", "characters", is_text=True)
KINDS = {kind.name: kind for kind in (READS, PROTEINS, TEXTS)}


def is_multi_label(labels: set[str | None], n_ranks: int) -> bool:
    """True if the ranks are the labels of a multi-label classifier: each says yes or no.

    Args:
        labels: all calls of all ranks that are known; None is no call.

    >>> is_multi_label({"yes", "no"}, 3), is_multi_label({"yes", "maybe"}, 3), is_multi_label({None}, 3)
    (True, False, False)
    """
    named = labels - {None}
    return n_ranks > 1 and bool(named) and named <= {NO, YES}
