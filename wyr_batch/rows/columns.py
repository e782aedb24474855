"""Results to the Parquet columns: one row per read, in input order, whatever happened to it.

| column | type | meaning |
| --- | --- | --- |
| file | dictionary | of several inputs, as named; of pairs, the file of the first mates |
| read_id | string | header up to the first white space |
| mate | int8 | 0, or 1/2 for pairs |
| length, n_tokens | int32 | bases; tokens without `<cls>` |
| status | dictionary | ok, windowed, empty, too_short, failed |
| mask, mask_RANK | list of float32, float16 or uint8 | per token, in read order |
| token_start | list of int32 | first base of each token, 0-based |
| token_end | list of int32 | where each ends, where tokens are no 6-mers |
| segments | list of struct start, end, mean | runs of mask >= 0.5 in bases, half-open |
| mask_mean | float32 | over tokens |
| RANK, RANK_prob | dictionary, float32 | call on the plain read |
| RANK_masked, RANK_masked_prob | dictionary, float32 | call on the masked read, unless --no-masked-calls |
| RANK_top | list of struct label, prob | best first, with --top-k |
| sequence | string | bases as in the file, upper case (texts as they are), with --sequences |

Null where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.checks.files import shown_path
from wyr_batch.explain.step import Explained
from wyr_batch.ranks import Rank, rank_slices
from wyr_batch.reads.chunk import ReadChunk, upper_case
from wyr_batch.rows.segments import find_segments, running_sum, token_ends
from wyr_batch.tokens.plan import Work
from wyr_batch.tokens.tokens import Int64s

STATUSES = ("ok", "windowed", "empty", "too_short", "failed")
_OK, _WINDOWED, _EMPTY, _TOO_SHORT, _FAILED = range(5)
_MASK_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "uint8": pa.uint8()}
_SEGMENT = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("mean", pa.float32())])
_TOP = pa.struct([("label", pa.string()), ("prob", pa.float32())])
_LABEL = pa.dictionary(pa.int32(), pa.string())

Bools = npt.NDArray[np.bool_]


class RowBuilder:
    """Builds the record batch of a chunk."""

    def __init__(
        self,
        ranks: Sequence[Rank],
        *,
        mask_dtype: str = "float32",
        rank_masks: bool = False,
        top_k: int = 1,
        confidence: float = 0.0,
        files: Sequence[str] = (),
        sequences: bool = False,
        masked_calls: bool = True,
        token_ends: bool = False,
        as_written: bool = False,
    ) -> None:
        """
        Args:
            masked_calls: write the calls on the masked reads.
            sequences: add the bases, in upper case unless `as_written`.
            token_ends: say where each token ends.
            files: inputs, in the order of the command, if rows are to say which one they are from.
        """
        self.ranks = ranks
        self.slices = rank_slices([len(rank.labels) for rank in ranks])
        self.labels = [pa.array(rank.labels, pa.string()) for rank in ranks]
        self.mask_type = _MASK_TYPES[mask_dtype]
        self.rank_masks, self.top_k, self.confidence, self.sequences = rank_masks, top_k, confidence, sequences
        self.masked_calls, self.token_ends, self.as_written = masked_calls, token_ends, as_written
        names = [shown_path(name) for name in files]
        self.files = list(dict.fromkeys(names))
        self._file_codes = [self.files.index(name) for name in names]  # by place: two inputs may have one name
        self.schema = self._schema()

    def _schema(self) -> pa.Schema:
        fields = [
            *([("file", _LABEL)] if self.files else []),
            ("read_id", pa.string()),
            ("mate", pa.int8()),
            ("length", pa.int32()),
            ("n_tokens", pa.int32()),
            ("status", pa.dictionary(pa.int8(), pa.string())),
            ("mask", pa.list_(self.mask_type)),
            ("token_start", pa.list_(pa.int32())),
            *([("token_end", pa.list_(pa.int32()))] if self.token_ends else []),
            ("segments", pa.list_(_SEGMENT)),
            ("mask_mean", pa.float32()),
        ]
        for rank in self.ranks:
            for name in (rank.name, *([f"{rank.name}_masked"] if self.masked_calls else [])):
                fields += [(name, _LABEL), (f"{name}_prob", pa.float32())]
            if self.top_k > 1:
                fields.append((f"{rank.name}_top", pa.list_(_TOP)))
        if self.rank_masks:
            fields += [(f"mask_{rank.name}", pa.list_(self.mask_type)) for rank in self.ranks]
        if self.sequences:
            fields.append(("sequence", pa.string()))
        return pa.schema(fields)

    def status(self, done: Explained) -> npt.NDArray[np.int8]:
        """Return the index in `STATUSES` of each read, int8 [n]."""
        work = done.work
        status = np.full(len(work.chunk), _OK, np.int8)
        status[np.diff(work.windows.first) > 1] = _WINDOWED
        status[work.tokens.counts == 0] = _EMPTY
        status[work.too_short] = _TOO_SHORT
        status[list(done.failed)] = _FAILED
        return status

    def build(self, done: Explained) -> pa.RecordBatch:
        """Return the rows of one chunk, in input order."""
        work = done.work
        status = self.status(done)
        absent = status >= _EMPTY
        offsets, counts = work.tokens.offsets, work.tokens.counts
        sums = running_sum(done.mask)
        means = (sums[offsets[1:]] - sums[offsets[:-1]]) / np.maximum(counts, 1)
        segments = find_segments(done.mask, sums, work.tokens, work.chunk.lengths)
        columns = [
            *([self._file(work.chunk)] if self.files else []),
            work.chunk.ids,
            pa.array(work.chunk.mates, pa.int8()),
            pa.array(work.chunk.lengths.astype(np.int32)),
            pa.array(counts.astype(np.int32)),
            pa.DictionaryArray.from_arrays(pa.array(status), pa.array(STATUSES)),
            self._mask_lists(done.mask, offsets, absent),
            _lists(pa.array(work.tokens.starts), offsets, absent),
            *([self._ends(work, absent)] if self.token_ends else []),
            _lists(
                pa.StructArray.from_arrays(
                    [pa.array(segments.start), pa.array(segments.end), pa.array(segments.mean)],
                    fields=list(_SEGMENT),
                ),
                segments.offsets,
                absent,
            ),
            pa.array(means.astype(np.float32), mask=absent),
        ]
        for r, classes in enumerate(self.slices):
            columns += self._calls(r, done.probs[:, classes], absent)
            if self.masked_calls:
                columns += self._calls(r, done.masked_probs[:, classes], absent)
            if self.top_k > 1:
                columns.append(self._top(r, done.probs[:, classes], absent))
        if self.rank_masks:
            columns += [self._mask_lists(rank_mask, offsets, absent) for rank_mask in done.rank_masks]
        if self.sequences:
            columns.append(_sequences(work.chunk, self.as_written))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _file(self, chunk: ReadChunk) -> pa.Array:
        codes = pa.array(np.full(len(chunk), self._file_codes[chunk.place], np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.files, pa.string()))

    def _ends(self, work: Work, absent: Bools) -> pa.Array:
        return _lists(pa.array(token_ends(work.tokens, work.chunk.lengths)), work.tokens.offsets, absent)

    def _calls(self, r: int, probs: npt.NDArray[np.float32], absent: Bools) -> list[pa.Array]:
        best = probs.argmax(axis=1)
        prob = probs[np.arange(len(probs)), best]
        unsure = absent | (prob < self.confidence)
        codes = pa.array(best.astype(np.int32), mask=unsure)
        return [pa.DictionaryArray.from_arrays(codes, self.labels[r]), pa.array(prob, mask=absent)]

    def _top(self, r: int, probs: npt.NDArray[np.float32], absent: Bools) -> pa.Array:
        k = min(self.top_k, probs.shape[1])
        best = np.argsort(-probs, axis=1, kind="stable")[:, :k]
        labels = self.labels[r].take(pa.array(best.ravel()))
        values = pa.array(np.take_along_axis(probs, best, axis=1).ravel())
        pairs = pa.StructArray.from_arrays([labels, values], fields=list(_TOP))
        return _lists(pairs, np.arange(len(probs) + 1) * k, absent)

    def _mask_lists(self, mask: npt.NDArray[np.float32], offsets: Int64s, absent: Bools) -> pa.Array:
        if pa.types.is_uint8(self.mask_type):
            values = pa.array(np.rint(mask * 255).astype(np.uint8))
        elif pa.types.is_float16(self.mask_type):
            values = pa.array(mask.astype(np.float16))
        else:
            values = pa.array(mask)
        return _lists(values, offsets, absent)


def _sequences(chunk: ReadChunk, as_written: bool) -> pa.StringArray:
    offsets = pa.py_buffer(chunk.offsets.astype(np.int32))
    bases = np.ascontiguousarray(chunk.bases) if as_written else upper_case(chunk.bases)
    return pa.StringArray.from_buffers(len(chunk), offsets, pa.py_buffer(bases))


def _lists(values: pa.Array, offsets: Int64s, absent: Bools) -> pa.ListArray:
    """Return a list column over flat values, null where `absent`."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=pa.array(absent))
