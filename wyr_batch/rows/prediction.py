"""What `Masker.predict` gives: one read's mask and calls, as arrays, as a row, and as a picture in a notebook.

A protein or a text is a read here as well; places in it are its residues or code points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wyr_batch.draw.html import styled_html
from wyr_batch.draw.kinds import READS, Kind
from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.explain.step import Explained
from wyr_batch.ranks import Rank, rank_slices
from wyr_batch.rows.columns import STATUSES
from wyr_batch.rows.segments import find_segments, running_sum
from wyr_batch.tokens.plan import Work
from wyr_batch.tokens.tokens import Tokens


class Segment(NamedTuple):
    """A run of tokens (of texts: of words) whose mask is 0.5 or more: start to end, half-open, and its mean mask."""

    start: int
    end: int
    mean: float


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What one read's call rests on. What `run` writes as null is None here, and nan where it is a number.

    Attributes:
        status: as in the Parquet: ok, windowed, empty or failed.
        reason: why it failed, None unless it has.
        mask: float32 [T], one value per token, `<cls>` not counted; nan if it failed.
        token_start: int32 [T], first base of each token.
        rank_masks: float32 [R, T]; nan if it failed.
        labels, masked_labels: per rank, the call on the plain and on the masked read; None if it is empty or failed.
        probs, masked_probs: float32 [C], all classes in rank order; nan if it is empty or failed.
            Without masked calls, masked_labels is None and masked_probs is [0].
        read_id: read1, read2, ... by its place among the sequences.
        sequence: its bases, upper case; a text as it is.
        ranks: their names and labels, in class order; one object for all reads.
        token_end: int32 [T], where each token ends; None: where the next begins.
        words: int32 [T], the word of each token, from 0; None: there are no words.
        kind: what it is: a read, a protein or a text.
        second_start: code point where the second text of a pair begins, -1 where there is none.
    """

    status: str
    reason: str | None
    mask: npt.NDArray[np.float32]
    token_start: npt.NDArray[np.int32]
    rank_masks: npt.NDArray[np.float32]
    labels: tuple[str, ...] | None
    masked_labels: tuple[str, ...] | None
    probs: npt.NDArray[np.float32]
    masked_probs: npt.NDArray[np.float32]
    read_id: str
    sequence: str
    ranks: tuple[Rank, ...]
    token_end: npt.NDArray[np.int32] | None = None
    words: npt.NDArray[np.int32] | None = None
    kind: Kind = READS
    second_start: int = -1

    @property
    def mask_mean(self) -> float:
        """Mean mask over tokens; nan if it is empty or failed."""
        return float(self.mask.mean(dtype=np.float64)) if len(self.mask) else float("nan")

    @property
    def segments(self) -> list[Segment]:
        """The segments, as in the Parquet; none if it is empty or failed."""
        if self.labels is None:
            return []
        bounds = np.array([0, len(self.mask)])
        tokens = Tokens(np.empty(0, np.int16), self.token_start, bounds, self.token_end, self.words)
        found = find_segments(self.mask, running_sum(self.mask), tokens, np.array([len(self.sequence)]))
        columns = (found.start.tolist(), found.end.tolist(), found.mean.tolist())
        return [Segment(*values) for values in zip(*columns, strict=True)]

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls, one a rank, with their probabilities."""
        slices = rank_slices([len(rank.labels) for rank in self.ranks])

        def called(
            labels: tuple[str, ...] | None, probs: npt.NDArray[np.float32]
        ) -> list[tuple[str | None, float | None]]:
            if labels is None:
                return [(None, None) for _ in self.ranks]
            return [(label, float(probs[part].max())) for label, part in zip(labels, slices, strict=True)]

        both = zip(called(self.labels, self.probs), called(self.masked_labels, self.masked_probs), strict=True)
        return tuple(Call(rank.name, *plain, *masked) for rank, (plain, masked) in zip(self.ranks, both, strict=True))

    def drawn(self) -> DrawnRead:
        """Return the read as pictures need it."""
        shown = slice(None) if self.labels is not None else slice(0)
        values, starts, length = self.mask[shown], self.token_start[shown], len(self.sequence)
        ends = None if self.token_end is None else self.token_end[shown]
        kept = None if ends is None else tuple((segment.start, segment.end) for segment in self.segments)
        return DrawnRead(
            self.read_id,
            0,
            length,
            self.status,
            self.sequence,
            values,
            starts,
            self.calls,
            ends=ends,
            kept=kept,
            kind=self.kind,
        )

    def __repr__(self) -> str:
        """Return one line: status, calls, mean mask and tokens."""
        if self.labels is None:
            said = [self.reason] if self.reason else []
        else:
            said = [f"{call.rank} {call.label} {call.prob:.2f}" for call in self.drawn().told_calls]
            said.append(f"mask mean {self.mask_mean:.2f}")
        n_tokens = len(self.mask)
        if self.kind.is_text:
            said.append(self.kind.length(len(self.sequence)))
        return f"<Prediction {self.read_id}: {', '.join([self.status, *said, f'{n_tokens:,} tokens'])}>"

    def _repr_html_(self) -> str:
        """Return the read coloured by its mask, which notebooks show."""
        return styled_html(self.drawn())


def predictions_from(
    done: Explained, status: npt.NDArray[np.int8], ranks: tuple[Rank, ...], kind: Kind = READS
) -> list[Prediction]:
    """Return the results of a chunk, one Prediction a read.

    Args:
        status: int8 [n], index in STATUSES.
        kind: what the chunk's rows are.
    """
    slices = rank_slices([len(rank.labels) for rank in ranks])

    def labels(probs: npt.NDArray[np.float32]) -> tuple[str, ...]:
        return tuple(rank.labels[int(probs[part].argmax())] for rank, part in zip(ranks, slices, strict=True))

    chunk = done.work.chunk
    tokens = done.work.tokens
    ends, words = tokens.ends, tokens.words
    letters = chunk.bases.tobytes()
    letters = letters if kind.is_text else letters.upper()
    seconds = [-1] * len(chunk) if chunk.second is None else chunk.second.tolist()
    token_bounds, base_bounds = (pairwise(offsets.tolist()) for offsets in (tokens.offsets, chunk.offsets))
    predictions = []
    for i, (read_id, (start, end), (first, last)) in enumerate(
        zip(chunk.ids.to_pylist(), token_bounds, base_bounds, strict=True)
    ):
        name = STATUSES[status[i]]
        explained = name not in ("empty", "failed")
        numbers = (done.mask[start:end], done.rank_masks[:, start:end], done.probs[i], done.masked_probs[i])
        mask, rank_masks, probs, masked_probs = (
            values if explained else np.full_like(values, np.nan) for values in numbers
        )
        predictions.append(
            Prediction(
                status=name,
                reason=done.failed.get(i),
                mask=mask,
                token_start=tokens.starts[start:end],
                rank_masks=rank_masks,
                labels=labels(probs) if explained else None,
                masked_labels=labels(masked_probs) if explained and len(masked_probs) else None,
                probs=probs,
                masked_probs=masked_probs,
                read_id=read_id,
                sequence=letters[first:last].decode(),
                ranks=ranks,
                token_end=None if ends is None else ends[start:end],
                words=None if words is None else words[start:end],
                kind=kind,
                second_start=-1 if seconds[i] < 0 else len(letters[first : first + seconds[i]].decode()),
            )
        )
    return predictions


def explained_from(predictions: Sequence[Prediction], work: Work, n_ranks: int, n_classes: int) -> Explained:
    """Return predictions as the results of a chunk: the inverse of `predictions_from`.

    Args:
        work: the reads as they were planned when they were explained.
    """
    n_masked = min((len(read.masked_probs) for read in predictions), default=n_classes)

    def joined(parts: list[npt.NDArray[np.float32]], size: int) -> npt.NDArray[np.float32]:
        """Return parts [size, *] as one, those of reads without a result as zeros."""
        values = np.concatenate([np.zeros((size, 0), np.float32), *parts], axis=1)
        return np.where(np.isnan(values), np.float32(0), values)

    return Explained(
        work=work,
        mask=joined([read.mask[None] for read in predictions], 1)[0],
        rank_masks=joined([read.rank_masks for read in predictions], n_ranks),
        explained_ids=np.full((len(predictions), n_ranks), -1, np.int32),
        probs=joined([read.probs[:, None] for read in predictions], n_classes).T,
        masked_probs=joined([read.masked_probs[:n_masked, None] for read in predictions], n_masked).T,
        failed={i: read.reason or "" for i, read in enumerate(predictions) if read.status == "failed"},
        n_run_tokens=0,
        n_padded_tokens=0,
    )
