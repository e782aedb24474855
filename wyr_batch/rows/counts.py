"""How many reads, bases and tokens, and what became of them: what parts keep and runs add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from wyr_batch.checks.fields import Fields


@dataclass
class Counts:
    """Counts of reads that have been written.

    Attributes:
        statuses: reads by status; they add up to `n_reads`.
        failures: reads of status `failed` by reason.
    """

    n_reads: int = 0
    n_bases: int = 0
    n_tokens: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Counts) -> Self:
        self.n_reads += other.n_reads
        self.n_bases += other.n_bases
        self.n_tokens += other.n_tokens
        self.statuses += other.statuses
        self.failures += other.failures
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the counts; `statuses` add up to `reads`."""
        if sum(self.statuses.values()) != self.n_reads:
            raise AssertionError(f"statuses {dict(self.statuses)} do not add up to {self.n_reads} reads")
        return {
            "reads": self.n_reads,
            "bases": self.n_bases,
            "tokens": self.n_tokens,
            "statuses": dict(self.statuses),
            "failures": dict(self.failures),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the counts that `as_json` wrote. Raises: as `fields` does."""
        reads, bases, tokens = (fields.whole(name, least=0) for name in ("reads", "bases", "tokens"))
        return cls(reads, bases, tokens, _tally(fields.object("statuses")), _tally(fields.object("failures")))


def _tally(fields: Fields) -> Counter[str]:
    return Counter({key: fields.whole(key, least=0) for key in fields.content})
