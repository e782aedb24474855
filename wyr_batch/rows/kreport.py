"""Reads by clade as text in the style of Kraken's report, which MultiQC, Pavian and KrakenTools read.

    percent  in_clade  direct  rank  taxid  name        tabs between; the name is indented by two spaces a level

A clade is a path of calls from the coarsest rank on. Labels of a classifier have no NCBI taxids, and none are claimed:
a clade's number is 1,000,000,000 or more, where NCBI has none, and follows from ranks and labels alone, so that a clade
has one number in the reports of all samples. Heads do not see one another, so a label may come up below several others;
its largest clade has its name, and the names of the others say below what they are, for some tools go by names.

Source: Kraken 2's manual, "Sample Report Output Format"; KrakenUniq numbers what has no taxid from 1,000,000,000 on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from wyr_batch.ranks import ROOT_CODE, rank_codes

Clade = tuple[str, ...]
FIRST_TAXID, N_TAXIDS = 1_000_000_000, 1_000_000_000  # up to there, it fits signed numbers of 32 bits
_ROOT_TAXID = 1
_LINE = re.compile(rb" *[\d.]+\t\d+\t\d+\t(U\t0\tunclassified|R\t1\troot|[A-Z]\d*\t1\d{9}\t +\S.*)")
_LOOKED_AT_BYTES = 1 << 16


def kreport(ranks: Sequence[str], counts: Mapping[Clade, int]) -> str:
    """Return the report.

    Args:
        ranks: from the coarsest on.
        counts: reads by their calls, up to the last before the first null one; () are those without a call.
    """
    n_reads = sum(counts.values())
    in_clade: Counter[Clade] = Counter()
    children: dict[Clade, set[Clade]] = defaultdict(set)
    for clade, n in counts.items():
        for depth in range(1, len(clade) + 1):
            in_clade[clade[:depth]] += n
            children[clade[: depth - 1]].add(clade[:depth])
    taxids = clade_taxids(ranks, in_clade)
    names, codes = _names(in_clade), rank_codes(ranks)

    def line(n: int, direct: int, code: str, taxid: int, name: str, depth: int) -> str:
        return f"{100 * n / max(n_reads, 1):6.2f}\t{n}\t{direct}\t{code}\t{taxid}\t{'  ' * depth}{name}\n"

    def below(parent: Clade) -> Iterator[str]:
        for clade in sorted(children[parent], key=lambda child: (-in_clade[child], child)):
            depth = len(clade)
            yield line(in_clade[clade], counts.get(clade, 0), codes[depth - 1], taxids[clade], names[clade], depth)
            yield from below(clade)

    n_unclassified = counts.get((), 0)
    unclassified = line(n_unclassified, n_unclassified, "U", 0, "unclassified", 0)
    root = line(n_reads - n_unclassified, 0, ROOT_CODE, _ROOT_TAXID, "root", 0)
    return unclassified + root + "".join(below(()))


def _names(in_clade: Mapping[Clade, int]) -> dict[Clade, str]:
    """Return the name of each clade, told apart from others of its rank.

    >>> _names({("A", "x"): 5, ("B", "x"): 2})
    {('A', 'x'): 'x', ('B', 'x'): 'x [B]'}
    """
    names: dict[Clade, str] = {}
    taken: set[tuple[int, str]] = set()
    for clade in sorted(in_clade, key=lambda clade: (-in_clade[clade], clade)):
        *above, label = clade
        names[clade] = f"{label} [{'; '.join(above)}]" if (len(clade), label) in taken else label
        taken.add((len(clade), label))
    return names


def clade_taxids(ranks: Sequence[str], clades: Iterable[Clade]) -> dict[Clade, int]:
    """Return a number for each clade, from 1,000,000,000 on, made of the names of its ranks and labels.

    Two that would get the same one, by chance in 1 of 2,000 reports of 1,000 clades, are told apart within the report.
    """
    taken: dict[int, Clade] = {}
    for clade in sorted(clades):
        named = "\t".join(f"{rank}={label}" for rank, label in zip(ranks, clade, strict=False))
        number = int.from_bytes(hashlib.sha256(named.encode()).digest()[:8]) % N_TAXIDS
        while number in taken:
            number = (number + 1) % N_TAXIDS
        taken[number] = clade
    return {clade: FIRST_TAXID + number for number, clade in taken.items()}


def is_kreport(path: Path) -> bool:
    """True if a file is empty, or a report that `kreport` made: Kraken's own have other taxids."""
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False
    whole_lines = start.split(b"\n")[: -1 if len(start) == _LOOKED_AT_BYTES or start.endswith(b"\n") else None]
    return start == b"" or all(_LINE.fullmatch(line) for line in whole_lines)
