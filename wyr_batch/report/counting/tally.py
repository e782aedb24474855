"""What is counted over the rows of a masks file, in whole numbers: however the rows are cut, the sums are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from wyr_batch.draw.read import KEPT
from wyr_batch.errors import InputError
from wyr_batch.masks.rows import MaskRows, TokenMasks
from wyr_batch.report.counting.calls import Lineages, RankTally
from wyr_batch.tokens.tokens import Int64s

MASK_BINS = 32  # each holds 8 of the 256 values of a uint8 mask
POSITIONS = 1000  # tokens from the start of a read
SEGMENT_BINS = 250
TOKEN_BP = 6
BIN_LETTERS = 5  # of the lengths of segments, where tokens have no length of their own
FAILED_IDS = 10
_ONE = 1 << 24  # mask values are summed as whole multiples of 2^-24, so that no order of adding matters
_PIECE_TOKENS = 1 << 20
_ADVICE = "Make the masks again with wyr-batch run."


def pieces(rows: MaskRows, most_tokens: int = _PIECE_TOKENS) -> Iterator[MaskRows]:
    """Yield rows in parts of about `most_tokens` tokens, so that long reads take no more memory than short ones."""
    ends = np.cumsum(rows.numbers("n_tokens"))
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most_tokens, side="right")))
        yield rows.part(start, stop)
        start = stop


class Tally:
    """Counts of the rows added so far.

    Args:
        shown: the file, in messages.
        ranks: names of its ranks.
        has_masked: per rank, whether the file has calls of the masked reads.
        has_ends: whether the file has the ends of tokens.
        has_words: whether words are counted, which are tokens without a gap between them.
    """

    def __init__(
        self,
        shown: str,
        ranks: Sequence[str],
        has_masked: Sequence[bool],
        *,
        has_ends: bool = False,
        has_words: bool = False,
    ) -> None:
        self.shown = shown
        self.statuses: Counter[str] = Counter()
        self.failed_ids: list[str] = []
        self.n_rows = self.n_explained = self.n_bases = self.n_tokens = 0
        self.shortest_bp: int | None = None
        self.longest_bp: int | None = None
        self.ranks = [RankTally(name, masked) for name, masked in zip(ranks, has_masked, strict=True)]
        self.lineages = Lineages(self.ranks)
        self.masks = MaskTally()
        self.segments = SegmentTally(BIN_LETTERS if has_ends else TOKEN_BP)
        self.words = WordTally() if has_words else None

    def add(self, rows: MaskRows) -> None:
        """Count some rows. Raises: InputError if a mask value is none."""
        for piece in pieces(rows):
            self._add(piece)

    def _add(self, rows: MaskRows) -> None:
        lengths = rows.lengths
        self.n_rows += len(rows)
        self.n_bases += int(lengths.sum())
        self.n_tokens += int(rows.numbers("n_tokens").sum())
        self.shortest_bp = _least(self.shortest_bp, lengths)
        self.longest_bp = -_least(None if self.longest_bp is None else -self.longest_bp, -lengths)
        for count in rows.column("status").value_counts().to_pylist():
            self.statuses[str(count["values"])] += count["counts"]
        if self.statuses["failed"] > len(self.failed_ids) < FAILED_IDS:
            failed = pc.fill_null(pc.equal(rows.column("status"), "failed"), False)
            ids = rows.column("read_id").filter(failed).to_pylist()
            self.failed_ids += [str(read_id) for read_id in ids[: FAILED_IDS - len(self.failed_ids)]]
        explained = pc.is_valid(rows.column("mask")).to_numpy(zero_copy_only=False)
        self.n_explained += int(explained.sum())
        self.lineages.add([rank.add(rows) for rank in self.ranks], explained)
        check_tokens(rows, self.shown)
        tokens = rows.masks()
        check_values(tokens, rows, self.shown)
        self.masks.add(tokens)
        self.segments.add(rows, explained)
        if self.words is not None:
            self.words.add(rows, tokens)


class MaskTally:
    """Mask values of all tokens, and by their place in the read.

    Attributes:
        counts: int64 [MASK_BINS].
        reads, sums, squares: int64 [POSITIONS], of the tokens at each place in the read; sums in 2^-24.
        total: of all values, in 2^-24; n_kept: tokens whose mask rounds to 1.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(MASK_BINS, np.int64)
        self.reads, self.sums, self.squares = (np.zeros(POSITIONS, np.int64) for _ in range(3))
        self.total = self.n_tokens = self.n_kept = 0

    def add(self, tokens: TokenMasks) -> None:
        """Count the tokens of some rows."""
        values = tokens.values
        bins = np.minimum((values * np.float32(MASK_BINS)).astype(np.int64), MASK_BINS - 1)
        self.counts += np.bincount(bins, minlength=MASK_BINS)
        fixed = np.rint(values.astype(np.float64) * _ONE)
        self.total += int(fixed.sum())
        self.n_tokens += len(values)
        self.n_kept += int((values >= KEPT).sum())
        places = np.arange(len(values)) - np.repeat(tokens.offsets[:-1], np.diff(tokens.offsets))
        if len(places) and int(places.max()) >= POSITIONS:
            near = places < POSITIONS
            places, values, fixed = places[near], values[near], fixed[near]
        self.reads += np.bincount(places, minlength=POSITIONS)
        self.sums += np.bincount(places, fixed, POSITIONS).astype(np.int64)
        self.squares += np.bincount(places, np.rint(fixed * values), POSITIONS).astype(np.int64)

    def as_json(self) -> dict[str, Any]:
        """Return mean, share of kept tokens, and the histogram; null where there are no tokens."""
        n = self.n_tokens
        return {
            "tokens": n,
            "mean": self.total / _ONE / n if n else None,
            "kept_share": self.n_kept / n if n else None,
            "bins": MASK_BINS,
            "counts": self.counts.tolist(),
        }

    def positions_as_json(self) -> dict[str, Any]:
        """Return reads, and mean and standard deviation of the mask value, at each place that any read has."""
        shown = int(np.count_nonzero(self.reads))
        n = self.reads[:shown]
        mean, square = self.sums[:shown] / _ONE / n, self.squares[:shown] / _ONE / n
        sd = np.sqrt(np.maximum(square - mean**2, 0))
        return {"most": POSITIONS, "reads": n.tolist(), "mean": mean.round(6).tolist(), "sd": sd.round(6).tolist()}


class SegmentTally:
    """Segments of the reads.

    Attributes:
        per_read: int64 [SEGMENT_BINS + 1], reads by their number of segments; the last: that many or more.
        lengths: int64 [SEGMENT_BINS + 1], segments by their length in `bin_letters`, from 1, the last: more.
    """

    def __init__(self, bin_letters: int) -> None:
        self.bin_letters = bin_letters
        self.per_read = np.zeros(SEGMENT_BINS + 1, np.int64)
        self.lengths = np.zeros(SEGMENT_BINS + 1, np.int64)
        self.n = self.n_bases = self.n_read_bases = 0

    def add(self, rows: MaskRows, explained: npt.NDArray[np.bool_]) -> None:
        """Count the segments of some rows; `explained` bool [n]: rows with a mask."""
        segments = rows.segments()
        spans = segments.end.astype(np.int64) - segments.start
        per_read = np.minimum(np.diff(segments.offsets)[explained], SEGMENT_BINS)
        self.per_read += np.bincount(per_read, minlength=SEGMENT_BINS + 1)
        bins = np.clip(-(-spans // self.bin_letters) - 1, 0, SEGMENT_BINS)
        self.lengths += np.bincount(bins, minlength=SEGMENT_BINS + 1)
        self.n += len(spans)
        self.n_bases += int(spans.sum())
        self.n_read_bases += int(rows.lengths[explained].sum())

    def as_json(self) -> dict[str, Any]:
        """Return the distributions, without the empty bins at their ends, and the sums."""
        n_reads = int(self.per_read.sum())
        return {
            "total": self.n,
            "per_read_mean": self.n / n_reads if n_reads else None,
            "length_mean_bp": self.n_bases / self.n if self.n else None,
            "bases_share": self.n_bases / self.n_read_bases if self.n_read_bases else None,
            "most": SEGMENT_BINS,
            "per_read": np.trim_zeros(self.per_read, "b").tolist(),
            "length_bin_bp": self.bin_letters,
            "lengths": np.trim_zeros(self.lengths, "b").tolist(),
        }


class WordTally:
    """Words of texts: stretches of tokens without a gap between them, as white space leaves one.

    Attributes:
        lengths: int64 [SEGMENT_BINS + 1], segments by their number of words; the last: that many or more.
    """

    def __init__(self) -> None:
        self.lengths = np.zeros(SEGMENT_BINS + 1, np.int64)
        self.n = self.n_segments = self.n_in_segments = 0

    def add(self, rows: MaskRows, tokens: TokenMasks) -> None:
        """Count the words of some rows, and of their segments."""
        begins = np.ones(len(tokens.starts), bool)
        begins[1:] = tokens.starts[1:] != tokens.ends[:-1]
        has_any = np.diff(tokens.offsets) > 0
        begins[tokens.offsets[:-1][has_any]] = True
        self.n += int(begins.sum())
        number = np.cumsum(begins)
        segments = rows.segments()
        row = np.repeat(np.arange(len(rows)), np.diff(tokens.offsets)) << 32
        places = row + tokens.starts
        base = np.repeat(np.arange(len(rows)), np.diff(segments.offsets)) << 32
        first = np.searchsorted(places, base + segments.start)
        last = np.searchsorted(places, base + segments.end) - 1
        if not len(first):
            return
        within = number[last] - number[np.minimum(first, last)] + 1
        self.lengths += np.bincount(np.minimum(within, SEGMENT_BINS), minlength=SEGMENT_BINS + 1)
        self.n_segments += len(within)
        self.n_in_segments += int(within.sum())

    def as_json(self) -> dict[str, Any]:
        """Return all words, and the distribution of words over segments, from 0, without the empty bins at its end."""
        return {
            "total": self.n,
            "per_segment_mean": self.n_in_segments / self.n_segments if self.n_segments else None,
            "per_segment": np.trim_zeros(self.lengths, "b").tolist(),
        }


def check_tokens(rows: MaskRows, shown: str) -> None:
    """Raise InputError unless every row has as many tokens as mask values."""
    values, starts = (pc.fill_null(pc.list_value_length(rows.column(name)), 0) for name in ("mask", "token_start"))
    if not values.equals(starts):
        i = int(np.argmax(pc.not_equal(values, starts).to_numpy(zero_copy_only=False)))
        got = f"{values[i]} mask values and {starts[i]} in token_start"
        raise InputError(f"{shown}, row {rows.first + i + 1:,}", got, "as many", _ADVICE)


def check_values(tokens: TokenMasks, rows: MaskRows, shown: str) -> None:
    """Raise InputError unless every mask value is in [0, 1]."""
    values = tokens.values
    good = (values >= 0) & (values <= 1)
    if not good.all():
        at = int(np.argmin(good))
        i = int(np.searchsorted(tokens.offsets, at, side="right")) - 1
        where = f"{shown}, row {rows.first + i + 1:,}, column mask"
        raise InputError(where, values[at], "values from 0 to 1", _ADVICE)


def _least(one: int | None, others: Int64s) -> int:
    least = int(others.min())
    return least if one is None else min(one, least)
