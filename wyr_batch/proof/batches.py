"""What a proof is run on: ragged batches of every length and size, then the reads themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wyr_batch.reads.open import open_reads
from wyr_batch.tokens.kmers import FIRST_BASE_ID, FIRST_KMER_ID, N_ID, UNKNOWN_ID, KmerTokenizer
from wyr_batch.tokens.tokens import Int32s, Tokenizer, Tokens
from wyr_batch.vocabulary import SIX_MERS, Vocabulary

LENGTHS = (7, 65, 200)  # and the longest that the file takes
BATCH_SIZES = (1, 3, 16)
# A longer batch gets fewer rows: attention holds rows * heads * T^2 numbers, and all batches of set sizes are run.
MAX_BATCH_TOKENS, MAX_EDGE_TOKENS = 4096, 1024
N_READS = 256
READS = Path(__file__).with_name("reads.fastq.gz")  # the first reads of examples/reads.fastq.gz

Array = npt.NDArray[Any]


class Edge(NamedTuple):
    """A batch that every proof runs.

    Attributes:
        batch: int32 [B, T], input_ids.
        others_too: it is run once more, with other classes asked for; the smallest of its length with rows to pad.
        alone_too: some of its rows are run alone as well; the largest of its length.
    """

    batch: Int32s
    others_too: bool
    alone_too: bool


def edge_batches(
    reads: Sequence[npt.ArrayLike] | None,
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    max_tokens: int,
    vocabulary: Vocabulary = SIX_MERS,
) -> list[Edge]:
    """Return a batch of every length and size, shortest first; arguments as of `compare`. The same every time."""
    rng = np.random.default_rng(0)
    source = token_source(rng, reads, vocabulary)
    edges = []
    for length in sorted({length for length in lengths if length < max_tokens} | {max_tokens}):
        most = max(2, MAX_EDGE_TOKENS // length)  # two at least: a row alone is compared with the same row in a batch
        sizes = sorted({min(size, most) for size in batch_sizes})
        several = next((size for size in sizes if size > 1), sizes[-1])
        for size in sizes:
            batch = ragged_batch(source, rng, size, length, vocabulary)
            edges.append(Edge(batch, others_too=size == several, alone_too=size == sizes[-1]))
    return edges


def read_batches(
    reads: Sequence[npt.ArrayLike] | None,
    batch_sizes: Sequence[int],
    max_tokens: int,
    vocabulary: Vocabulary = SIX_MERS,
) -> list[Int32s]:
    """Return batches of the first tokens of each read, as many as fit, in order; arguments as of `compare`."""
    n_special = vocabulary.n_special
    rows = [np.asarray(read)[: max_tokens - n_special] for read in reads or ()]
    n_rows = max(1, min(max(batch_sizes), MAX_BATCH_TOKENS // (n_special + max(map(len, rows), default=0))))
    return [vocabulary.padded(rows[start : start + n_rows]) for start in range(0, len(rows), n_rows)]


def token_source(
    rng: np.random.Generator, reads: Sequence[npt.ArrayLike] | None, vocabulary: Vocabulary
) -> Iterator[Int32s]:
    """Yield pieces of tokens without end: the reads over and over, or random ones (6-mers ending in letters)."""
    while True:
        if reads is not None and any(np.size(read) > 0 for read in reads):
            yield from (np.asarray(read, np.int32) for read in reads)
        elif vocabulary.file:
            yield vocabulary.random_ids(rng, (40,))
        else:
            body = rng.integers(FIRST_KMER_ID, FIRST_BASE_ID, size=40)
            tail = rng.choice([UNKNOWN_ID, *range(FIRST_BASE_ID, N_ID + 1)], size=5)
            yield np.concatenate((body, tail)).astype(np.int32)


def ragged_batch(
    source: Iterator[Int32s], rng: np.random.Generator, n_rows: int, length: int, vocabulary: Vocabulary = SIX_MERS
) -> Int32s:
    """Return input_ids int32 [n_rows, length]: row 0 full, the others ragged, row 1 all one token (of 6-mers, N)."""
    rows = []
    most = length - vocabulary.n_special
    for row in range(n_rows):
        n_tokens = most if row == 0 else int(rng.integers(0, most + 1))
        alike = int(next(source)[0]) if vocabulary.file else N_ID
        tokens = np.full(n_tokens, alike, np.int32) if row == 1 else np.empty(0, np.int32)
        while len(tokens) < n_tokens:
            tokens = np.concatenate((tokens, next(source)))
        rows.append(tokens[:n_tokens])
    return vocabulary.padded(rows)


def token_arrays(path: Path = READS, tokenizer: Tokenizer | None = None) -> list[Array]:
    """Return the token ids of a file's first reads, one array each; empty reads are left out.

    Args:
        tokenizer: of the model; left out: 6-mers.
    """
    with open_reads(path, chunk_reads=N_READS) as reads:
        for chunk in islice(reads, 1):
            return chunk_tokens((tokenizer or KmerTokenizer()).tokenise(chunk))
    return []


def chunk_tokens(tokens: Tokens) -> list[Array]:
    """Return the token ids of each read that has any."""
    return [tokens.ids[start:end] for start, end in pairwise(tokens.offsets.tolist()) if end > start]
