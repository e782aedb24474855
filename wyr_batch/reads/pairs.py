"""Mates as rows of their own, 1 and 2 in turn: from two files at a time, or from one in which they alternate.

Mates must have the same name, a last `/1` or `/2` aside, or the `.1` or `.2` that SRA's tools put behind a spot's
number when asked for read numbers (`SRR1.7.1`, `SRR1.7.2`; in `SRR1.1` and `SRR1.2` the numbers are spots). A pair that
does not match ends the run after the good pairs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.errors import InputError
from wyr_batch.reads.chunk import ReadChunk, joined
from wyr_batch.reads.open import OpenInput
from wyr_batch.reads.records import offsets_from, shown

_ADVICE = "Give files of the same reads in the same order."


def paired_chunks(first: OpenInput, second: OpenInput) -> Generator[ReadChunk, None, None]:
    """Yield the reads of two files in turn; the chunks' `source` is the first file.

    Raises: InputError after the last good pair if names differ, a file ends before the other, or is damaged.
    """
    left: list[ReadChunk | None] = [None, None]
    n_pairs = 0
    while True:
        for i, reads in enumerate((first, second)):
            left[i] = left[i] or next(reads, None)
        one, two = left
        if one is None or two is None:
            if one is not two:
                short, long = (first, second) if one is None else (second, first)
                raise InputError(
                    f"{short.path}, record {n_pairs + 1}",
                    f"the end of the file after {n_pairs:,} reads",
                    f"a mate for every read of {long.path}",
                    _ADVICE,
                )
            return
        n = min(len(one), len(two))
        pairs = _in_turn(one.part(0, n), two.part(0, n))
        odd = _first_odd(pairs.ids)
        if odd is not None:
            if odd:
                yield pairs.part(0, 2 * odd)
            names = [shown(name) for name in pairs.ids[2 * odd : 2 * odd + 2].to_pylist()]
            raise InputError(
                f"{first.path} and {second.path}, record {n_pairs + odd + 1}",
                f"{names[0]} and {names[1]}",
                "mates of one name",
                _ADVICE,
            )
        yield pairs
        n_pairs += n
        left = [chunk.part(n, len(chunk)) if len(chunk) > n else None for chunk in (one, two)]


def interleaved_chunks(reads: OpenInput) -> Iterator[ReadChunk]:
    """Yield the reads of a file in which mates follow each other; chunks hold whole pairs.

    Raises: InputError after the last good pair if names differ or a read is left over.
    """
    waiting: ReadChunk | None = None  # a first mate without its second
    n_pairs = 0
    for chunk in reads:
        chunk = chunk if waiting is None else _one_after_the_other(waiting, chunk)
        n = len(chunk) // 2
        odd = _first_odd(chunk.ids[: 2 * n])
        good = n if odd is None else odd
        if good:
            yield replace(chunk.part(0, 2 * good), mates=np.tile(np.array([1, 2], np.int8), good))
        if odd is not None:
            names = [shown(name) for name in chunk.ids[2 * odd : 2 * odd + 2].to_pylist()]
            raise InputError(
                f"{reads.path}, record {2 * (n_pairs + odd) + 1}",
                f"{names[0]} followed by {names[1]}",
                "two mates of one name",
                "Leave --interleaved out if reads are not paired.",
            )
        n_pairs += n
        waiting = chunk.part(2 * n, len(chunk)) if len(chunk) > 2 * n else None
    if waiting is not None:
        raise InputError(
            f"{reads.path}, read {shown(waiting.ids[0].as_py())}, record {2 * n_pairs + 1}",
            "the end of the file",
            "the read's mate",
            "The file was cut, or its reads are not interleaved.",
        )


def _first_odd(ids: pa.StringArray) -> int | None:
    """Return the first pair whose names differ; ids of mates in turn."""
    names = pc.replace_substring_regex(ids, r"(/[12]|(\.[0-9]+)\.[12])$", r"\2")
    place = np.arange(0, len(ids), 2)
    one, two = (ids.take(pa.array(place + i)) for i in (0, 1))
    differ = pc.not_equal(names.take(pa.array(place)), names.take(pa.array(place + 1)))
    # a/1 with a/1 are the first mates twice.
    differ = pc.or_(differ, pc.and_(pc.equal(one, two), pc.match_substring_regex(one, "/[12]$")))
    at = pc.index(differ, True).as_py()
    return None if at < 0 else int(at)


def _in_turn(one: ReadChunk, two: ReadChunk) -> ReadChunk:
    """Return the reads of two chunks of one size, alternating."""
    both = _one_after_the_other(one, two)
    n = len(one)
    order = np.arange(2 * n).reshape(2, n).T.ravel()

    def in_order(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        reads = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), 2 * n, [None, pa.py_buffer(both.offsets), pa.py_buffer(values)]
        ).take(pa.array(order))
        return np.frombuffer(reads.buffers()[2] or b"", np.uint8, len(values))

    return replace(
        both,
        ids=both.ids.take(pa.array(order)),
        mates=np.tile(np.array([1, 2], np.int8), n),
        bases=in_order(both.bases),
        offsets=offsets_from(np.diff(both.offsets)[order]),
        qualities=None if both.qualities is None else in_order(both.qualities),
        letters=None if both.letters is None else both.letters[order],
        second=None if both.second is None else both.second[order],
    )


def _one_after_the_other(one: ReadChunk, two: ReadChunk) -> ReadChunk:
    return replace(
        one,
        ids=pa.concat_arrays([one.ids, two.ids]),
        mates=np.concatenate([one.mates, two.mates]),
        bases=np.concatenate([one.bases, two.bases]),
        offsets=offsets_from(np.concatenate([np.diff(one.offsets), np.diff(two.offsets)])),
        qualities=joined([one.qualities, two.qualities]),
        letters=joined([one.letters, two.letters]),
        second=joined([one.second, two.second]),
    )
