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

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.tokens.tokens import Int16s, Int32s, Int64s, Tokens

UNKNOWN_ID, PAD_ID, MASK_ID, CLS_ID = 0, 1, 2, 3
FIRST_KMER_ID, FIRST_BASE_ID, N_ID = 6, 4102, 4106
VOCAB_SIZE = 4107
TOKEN_BP = 6
_N, _OTHER, _SPACE = 4, 5, 6

Uint8s = npt.NDArray[np.uint8]


def vocabulary() -> list[str]:
    """Return the published vocabulary, 4,107 tokens in id order."""
    special = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>"]
    return [*special, *("".join(letters) for letters in product("ATCG", repeat=TOKEN_BP)), *"ATCGN"]


@cache
def _letter_codes(u_is_t: bool) -> bytes:
    """Table for bytes.translate: 0 to 3 for A, T, C, G (either case), then N, other, white space."""
    table = np.full(256, _OTHER, np.uint8)
    for code, letter in enumerate("ATCGN"):
        table[[ord(letter), ord(letter.lower())]] = code
    if u_is_t:
        table[[ord("U"), ord("u")]] = 1
    table[[ord(space) for space in " \t\n\r\v\f"]] = _SPACE
    return table.tobytes()


def _runs(codes: Uint8s, read_offsets: Int64s) -> tuple[Int64s, Int64s]:
    """Return where runs of one kind start, and the index of each read's first run (int64 [n + 1])."""
    edges = read_offsets[:-1][np.diff(read_offsets) > 0]
    if codes.size and int(codes.max()) >= _N:
        kinds = np.maximum(codes, _N - 1)
        changes = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
        edges = np.union1d(edges, changes)
    return edges, np.searchsorted(edges, read_offsets).astype(np.int64)


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
    codes = np.frombuffer(bases.tobytes().translate(_letter_codes(u_is_t)), np.uint8)
    run_starts, first_run = _runs(codes, offsets)
    run_lengths = np.diff(run_starts, append=len(codes))
    kinds = np.maximum(codes[run_starts], _N - 1) - (_N - 1)

    # Each run is two stretches of tokens: 6-mers, then single letters. Runs of bases have L // 6 and L % 6, N none and
    # L; another run is one token however long, white space none.
    n_kmers = np.where(kinds == 0, run_lengths // TOKEN_BP, 0)
    n_singles = np.choose(kinds, [run_lengths % TOKEN_BP, run_lengths, 1, 0])
    counts = np.stack([n_kmers, n_singles], axis=1).ravel()
    steps = np.tile(np.array([TOKEN_BP, 1], np.int32), len(kinds))
    begins = np.stack([run_starts, run_starts + TOKEN_BP * n_kmers], axis=1).ravel()
    token_bounds = np.concatenate(([0], np.cumsum(counts)))

    # Token t of the chunk starts at begin + step * (t - first token of its stretch).
    shifts = (begins - steps * token_bounds[:-1]).astype(np.int32)
    step = np.repeat(steps, counts)
    starts = step * np.arange(token_bounds[-1], dtype=np.int32) + np.repeat(shifts, counts)
    ids = _token_ids(codes, starts, np.flatnonzero(step == 1))
    token_offsets = token_bounds[2 * first_run]
    read_starts = np.repeat(offsets[:-1].astype(np.int32), np.diff(token_offsets))
    return Tokens(ids, starts - read_starts, token_offsets)


class KmerTokenizer:
    """The tokenizer of Nucleotide Transformers: 6-mers, which leave no gap."""

    has_spans = False

    def tokenise(self, chunk: ReadChunk) -> Tokens:
        """Return the tokens of a chunk's reads."""
        return tokenise(chunk.bases, chunk.offsets)


def _token_ids(codes: Uint8s, starts: Int32s, singles: Int64s) -> Int16s:
    """Return ids int16 of the tokens that start at `starts`: 6-mers, but single letters those at index `singles`."""
    by_letter = np.array([*range(FIRST_BASE_ID, N_ID), N_ID, UNKNOWN_ID, UNKNOWN_ID], np.int16)
    letters = by_letter[codes[starts[singles]]]
    # A 6-mer from two 3-mers. What is worked out for other letters, and past the end, is replaced by `letters`.
    padded = np.zeros(len(codes) + TOKEN_BP, np.uint8)
    np.bitwise_and(codes, 3, out=padded[: len(codes)])
    triples = (padded[:-2] << 4) | (padded[1:-1] << 2) | padded[2:]
    ids: Int16s = triples[starts].astype(np.int16)
    ids <<= 6
    ids += triples[3:][starts]
    ids += np.int16(FIRST_KMER_ID)
    ids[singles] = letters
    return ids
