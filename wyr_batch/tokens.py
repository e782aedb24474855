"""Reads to 6-mer tokens, whole chunks at a time.

The vocabulary and rules are those of the Nucleotide Transformer's `EsmTokenizer` (published `vocab.txt`), after
upper-casing: left to right, six letters of A, C, G, T become one token; where fewer than six stand before the
next other letter or the end, each becomes a one-letter token; N is one token a letter; a run of anything else
(IUPAC codes, gaps, digits) is ONE unknown token however long; white space yields nothing but breaks a 6-mer.

    ids: <unk> 0  <pad> 1  <mask> 2  <cls> 3  <eos> 4  <bos> 5, 6-mers 6..4101 in product order of A, T, C, G,
         A 4102  T 4103  C 4104  G 4105  N 4106

    read      A C G T A C N N T T R Y A C G T A C
    runs     |--- bases --|-N-|bases| other | bases --|
    tokens   |   ACGTAC   |N|N|T|T |  unk  |  ACGTAC |

So the work is done on runs of one kind, not on letters: a clean read is a single run. Nothing loops over reads
or tokens. Not handled: special tokens written out in a read (`<cls>`), which upper-casing makes unknown anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

UNKNOWN_ID, PAD_ID, MASK_ID, CLS_ID = 0, 1, 2, 3
FIRST_KMER_ID, FIRST_BASE_ID, N_ID = 6, 4102, 4106
VOCAB_SIZE = 4107
TOKEN_BP = 6
_N, _OTHER, _SPACE = 4, 5, 6

Uint8s = npt.NDArray[np.uint8]
Int16s = npt.NDArray[np.int16]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of consecutive reads, `<cls>` not among them.

    Attributes:
        ids: int16 [N], token ids of all reads, one read after the other.
        starts: int32 [N], first base of each token within its read, 0-based.
        offsets: int64 [n + 1], read i holds tokens offsets[i] to offsets[i + 1].
    """

    ids: Int16s
    starts: Int32s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int64s:
        """Tokens per read, int64 [n]."""
        return np.diff(self.offsets)


def vocabulary() -> list[str]:
    """Return the published vocabulary, 4,107 tokens in id order."""
    special = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>"]
    return [*special, *("".join(letters) for letters in product("ATCG", repeat=TOKEN_BP)), *"ATCGN"]


@cache
def _letter_codes(u_is_t: bool) -> Uint8s:
    """Byte -> 0 to 3 for A, T, C, G (either case), then N, other, white space."""
    table = np.full(256, _OTHER, np.uint8)
    for code, letter in enumerate("ATCGN"):
        table[[ord(letter), ord(letter.lower())]] = code
    if u_is_t:
        table[[ord("U"), ord("u")]] = 1
    table[[ord(space) for space in " \t\n\r\v\f"]] = _SPACE
    return table


def _runs(codes: Uint8s, read_offsets: Int64s) -> tuple[Int64s, Int64s]:
    """Return where runs of one kind start, and the index of each read's first run (int64 [n + 1])."""
    edges = read_offsets[:-1][np.diff(read_offsets) > 0]
    if codes.size and int(codes.max()) >= _N:
        kinds = np.maximum(codes, _N - 1)
        changes = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
        edges = np.union1d(edges, changes)
    return edges, np.searchsorted(edges, read_offsets).astype(np.int64)


def _kmer_ids(codes: Uint8s, starts: Int64s) -> Int16s:
    """Return the ids of the 6-mers that start at the given letters, from two overlapping 3-mers each."""
    triples = (codes[:-2] << 4) | (codes[1:-1] << 2) | codes[2:]
    high = triples[starts].astype(np.int16)
    return (high << 6) + triples[starts + 3] + np.int16(FIRST_KMER_ID)


def tokenise(bases: Uint8s, offsets: Int64s, *, u_is_t: bool = True) -> Tokens:
    """Tokenise a chunk of reads.

    Args:
        bases: uint8 [N], ASCII letters of all reads, either case.
        offsets: int64 [n + 1], read i is bases[offsets[i]:offsets[i + 1]]; offsets[0] is 0.
        u_is_t: read U as T; False leaves it unknown, as the published tokeniser does.
    Returns: Tokens of the n reads; an empty read has none.
    Source: transformers' EsmTokenizer over the published vocab.txt; equality is tested id for id.

    >>> read = np.frombuffer(b"ACGTACNTT", np.uint8)
    >>> tokens = tokenise(read, np.array([0, 9]))
    >>> tokens.ids.tolist(), tokens.starts.tolist()
    ([728, 4106, 4103, 4103], [0, 6, 7, 8])
    """
    codes = _letter_codes(u_is_t)[bases]
    run_starts, first_run = _runs(codes, offsets)
    run_lengths = np.diff(run_starts, append=len(codes))
    run_codes = codes[run_starts]

    # Tokens a run gives: bases L // 6 six-mers and L % 6 letters; N one a letter; other one; white space none.
    is_bases = run_codes < _N
    n_kmers = np.where(is_bases, run_lengths // TOKEN_BP, 0)
    per_run = np.choose(np.maximum(run_codes, _N - 1) - (_N - 1), [n_kmers + run_lengths % TOKEN_BP, run_lengths, 1, 0])
    run_offsets = np.concatenate(([0], np.cumsum(per_run)))

    # Place within the run: six-mers first, then single letters.
    n_tokens = int(run_offsets[-1])
    place = np.arange(n_tokens) - np.repeat(run_offsets[:-1], per_run)
    kmers_here = np.repeat(n_kmers, per_run)
    is_kmer = place < kmers_here
    starts = np.repeat(run_starts, per_run) + place + (TOKEN_BP - 1) * np.minimum(place, kmers_here)

    ids = _token_ids(codes, starts, is_kmer)
    token_offsets = run_offsets[first_run]
    read_starts = np.repeat(offsets[:-1], np.diff(token_offsets))
    return Tokens(ids, (starts - read_starts).astype(np.int32), token_offsets)


def _token_ids(codes: Uint8s, starts: Int64s, is_kmer: npt.NDArray[np.bool_]) -> Int16s:
    """Return ids int16 of tokens starting at `starts`, six-mers where `is_kmer`, else single letters."""
    if not len(starts):
        return np.empty(0, np.int16)
    by_letter = np.array([*range(FIRST_BASE_ID, N_ID), N_ID, UNKNOWN_ID, UNKNOWN_ID], np.int16)
    if not is_kmer.any():
        return by_letter[codes[starts]]
    ids = np.empty(len(starts), np.int16)
    ids[is_kmer] = _kmer_ids(np.minimum(codes, np.uint8(3)), starts[is_kmer])
    singles = ~is_kmer
    ids[singles] = by_letter[codes[starts[singles]]]
    return ids
