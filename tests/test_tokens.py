"""The tokeniser against the published one's vectors, a slow plain twin, and its own invariances."""

from __future__ import annotations

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wyr_batch.tokens.kmers import CLS_ID, N_ID, tokenise
from wyr_batch.tokens.tokens import Tokens

VECTORS_FILE = Path(__file__).parent / "data" / "nt_tokenizer_vectors.jsonl.gz"
VECTORS = [json.loads(line) for line in gzip.decompress(VECTORS_FILE.read_bytes()).splitlines()]
KMER_LETTERS = "ATCG"


def tokens_of(*reads: str, u_is_t: bool = True) -> Tokens:
    raw = [read.encode("ascii") for read in reads]
    offsets = np.concatenate(([0], np.cumsum([len(r) for r in raw], dtype=np.int64))).astype(np.int64)
    return tokenise(np.frombuffer(b"".join(raw), np.uint8), offsets, u_is_t=u_is_t)


def per_read(tokens: Tokens) -> list[tuple[list[int], list[int]]]:
    bounds = tokens.offsets.tolist()
    return [(tokens.ids[a:b].tolist(), tokens.starts[a:b].tolist()) for a, b in pairwise(bounds)]


def slow_tokens(read: str) -> tuple[list[int], list[int]]:
    """One read, letter by letter, as the published rules are worded."""
    ids, starts, at, read = [], [], 0, read.upper().replace("U", "T")
    pattern = re.compile(r"[ACGT]{6}|[ACGTN]|\s+|[^ACGTN\s]+")
    while at < len(read):
        match = pattern.match(read, at)
        assert match
        piece, start = match.group(), at
        at = match.end()
        if piece.isspace():
            continue
        if piece[0] not in "ACGTN":
            ids.append(0)
        elif len(piece) == 6:
            ids.append(6 + sum(KMER_LETTERS.index(c) * 4 ** (5 - i) for i, c in enumerate(piece)))
        else:
            ids.append(4102 + "ATCGN".index(piece))
        starts.append(start)
    return ids, starts


def test_equals_published_tokenizer_id_for_id() -> None:
    tokens = tokens_of(*(v["seq"] for v in VECTORS), u_is_t=False)
    assert len(tokens) == len(VECTORS) > 300
    for vector, (ids, _) in zip(VECTORS, per_read(tokens), strict=True):
        assert [CLS_ID, *ids] == vector["ids_upper"], vector["seq"]


@given(st.lists(st.text(alphabet="ACGTACGTACGTacgtNnURY-* ", max_size=60), max_size=12))
def test_equals_slow_twin_in_any_company(reads: list[str]) -> None:
    assert per_read(tokens_of(*reads)) == [slow_tokens(read) for read in reads]


def test_starts_point_at_each_token_after_n() -> None:
    ((ids, starts),) = per_read(tokens_of("ACGTACNNTTRYGACGTACA"))
    assert ids[1:3] == [N_ID, N_ID]
    assert starts == [0, 6, 7, 8, 9, 10, 12, 18, 19]


def test_rna_reads_as_dna() -> None:
    assert per_read(tokens_of("ACGUACGUUUGC")) == per_read(tokens_of("ACGTACGTTTGC"))


@pytest.mark.parametrize("reads", [[], [""], ["", "", "A", ""], [" "], ["NNN"], ["RYK"]])
def test_reads_without_a_base_or_a_letter(reads: list[str]) -> None:
    assert per_read(tokens_of(*reads)) == [slow_tokens(read) for read in reads]
