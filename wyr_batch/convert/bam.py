"""The input's own records, each with its mask in the tag `wm`.

| record | tag |
| --- | --- |
| primary, of a row with a mask | wm:B:C, one byte a base of SEQ, in SEQ's orientation: 255 times the mask, rounded |
| primary, of a row without one (empty, too_short, failed, after --max-reads) | none |
| secondary, supplementary | none: their bases have their values in the primary record |

Everything else in a record stays as it is; a `wm` that was there before is replaced or removed. Tags that begin with a
small letter are free for such use (SAM specification, section 1.5).
"""

from __future__ import annotations

import itertools
import os
from array import array
from typing import Any

import numpy as np
import pysam

from wyr_batch._version import __version__
from wyr_batch.aligned.records import aligned_masks, matched_records, open_records
from wyr_batch.checks.files import whole_file
from wyr_batch.convert.conversion import Conversion, Written, mask_column
from wyr_batch.tokens.kmers import Uint8s

TAG = "wm"
_NAME = "wyr-batch"
_DESCRIPTION = "wm:B:C is 255 times the mask of each base of SEQ"


def write_bam(conversion: Conversion, *, rank_mask: str | None = None) -> Written:
    """Write the records of the run's one input as BAM, in their order, with their masks.

    Args:
        rank_mask: the masks of this rank; None: those of all ranks together.
    Raises: InputError if the input is not SAM, BAM or CRAM, or not the one of the masks; OutputError.
    """
    column = mask_column(conversion.masks, rank_mask)
    source = aligned_masks(conversion.masks, conversion.reads, column)
    n_records = n_tagged = 0
    with open_records(source) as file, whole_file(conversion.output) as partial:
        header = pysam.AlignmentHeader.from_text(with_program(str(file.header)))
        with pysam.AlignmentFile(os.fspath(partial), "wb", header=header) as out:
            for batch in matched_records(source, file):
                values = np.rint(batch.values * 255).astype(np.uint8)
                for record, span in batch.spans():
                    _set_mask(record, None if span is None else values[span])
                    out.write(record)
                    n_tagged += span is not None
                n_records += len(batch.records)
    return Written(n_tagged, n_records, "records")


def _set_mask(record: Any, mask: Uint8s | None) -> None:
    """Give a record the tag of its mask, uint8 [bases] as sequenced; None: take it away."""
    if mask is None:
        record.set_tag(TAG, None)
    else:
        record.set_tag(TAG, array("B", (mask[::-1] if record.is_reverse else mask).tobytes()))


def with_program(header: str) -> str:
    """Return the text of a SAM header with a @PG line for this program, after the last of the chain.

    Source: SAM specification, section 1.3, @PG: an ID of its own, PP names the program before it.

    >>> with_program("@HD\\tVN:1.6\\n@PG\\tID:wyr-batch\\n").splitlines()[-1].split("\\t")[:3]
    ['@PG', 'ID:wyr-batch.1', 'PN:wyr-batch']
    """
    programs = [line.split("\t")[1:] for line in header.splitlines() if line.startswith("@PG\t")]
    ids = [field[3:] for fields in programs for field in fields if field.startswith("ID:")]
    earlier = {field[3:] for fields in programs for field in fields if field.startswith("PP:")}
    names = itertools.chain([_NAME], (f"{_NAME}.{i}" for i in itertools.count(1)))
    own = next(name for name in names if name not in ids)
    last = next((f"\tPP:{name}" for name in reversed(ids) if name not in earlier), "")
    return f"{header}@PG\tID:{own}\tPN:{_NAME}\tVN:{__version__}{last}\tDS:{_DESCRIPTION}\n"
