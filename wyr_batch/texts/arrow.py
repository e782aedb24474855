"""Arrow files, and folders of them that the library datasets wrote with save_to_disk: a batch of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import is_file, reason_of, shown_path
from wyr_batch.errors import InputError
from wyr_batch.reads.records import shown
from wyr_batch.reads.source import CUT
from wyr_batch.texts.arrays import FAILURES, choose_of, rows_of
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.rows import BadRow, TextRows

ARROW_FILE, ARROW_STREAM = b"ARROW1", b"\xff\xff\xff\xff"
STATE = "state.json"
_SPLITS = "dataset_dict.json"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowTable:
    """Arrow files, one after the other; see `PlainText.rows`.

    Attributes:
        share: of the bytes that have been read, 0 to 1.
        total_bytes: of all files.
    """

    def __init__(self, paths: list[str], asked: TextColumns, where: str) -> None:
        """
        Args:
            where: the file or folder, for messages.
        Raises: InputError if a file is not there, or the first one is damaged or lacks the columns.
        """
        self._paths, self.share = paths, 0.0
        try:
            self.total_bytes = sum(map(os.path.getsize, paths))
            with open(paths[0], "rb") as file:
                self._schema, _ = _schema_and_batches(file)
        except FAILURES as error:
            raise InputError(where, f"unreadable Arrow data ({reason_of(error)})", "whole files", CUT) from None
        self._chosen = choose_of(asked, self._schema, where)

    def rows(self) -> Iterator[TextRows]:
        """Yield the rows. Raises: BadRow after the last good one."""
        n_bytes = 0
        for path in self._paths:
            of = f"in {shown(os.path.basename(path))}"
            try:
                with open(path, "rb") as file:
                    schema, batches = _schema_and_batches(file)
                    if not schema.equals(self._schema):
                        raise BadRow("", f"other columns {of}", "those of the first file")
                    for batch in batches:
                        self.share = (n_bytes + file.tell()) / max(1, self.total_bytes)
                        yield from rows_of(batch, self._chosen)
                    n_bytes += os.path.getsize(path)
                    self.share = n_bytes / max(1, self.total_bytes)
            except FAILURES as error:
                got = f"Arrow data that cannot be read ({reason_of(error)}) {of}"
                raise BadRow("", got, "whole data", CUT) from None


def _schema_and_batches(file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return what an open file holds. Raises: one of FAILURES, the batches too."""
    is_file = file.read(len(ARROW_FILE)) == ARROW_FILE
    file.seek(0)
    if is_file:
        reader = pa.ipc.open_file(file)
        return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    reader = pa.ipc.open_stream(file)
    return reader.schema, _of_stream(reader, file)


def _of_stream(reader: pa.RecordBatchReader, file: BinaryIO) -> Iterator[pa.RecordBatch]:
    yield from reader
    file.seek(-len(_STREAM_END), os.SEEK_END)  # Arrow takes a stream that was cut between two batches for a whole one
    if file.read() != _STREAM_END:
        raise pa.ArrowInvalid("no mark of the end")


def is_dataset_folder(path: str) -> bool:
    """True if a folder is one that save_to_disk wrote, of one split. Raises: InputError if it may not be looked at."""
    return is_file(os.path.join(path, STATE))


def _datasets_in(path: str, name: str) -> list[str]:
    """Return the names of the folders in a folder that save_to_disk wrote: of a DatasetDict, its splits."""
    try:
        found = [entry.name for entry in os.scandir(path) if entry.is_dir()]
    except OSError as error:
        raise InputError(name, f"'{reason_of(error)}'", "a folder that can be read", "Check its rights.") from None
    return sorted(each for each in found if is_dataset_folder(os.path.join(path, each)))


def files_of_folder(path: str) -> list[str]:
    """Return the Arrow files of a folder that save_to_disk wrote, in order.

    Source: datasets.Dataset.save_to_disk: state.json names them as `_data_files`.

    Raises: InputError if it is another folder, or one of such folders, as of a DatasetDict.
    """
    name, folder = shown_path(path), Path(path)
    if not is_dataset_folder(path):
        if inside := _datasets_in(path, name):
            got = f"a folder of the data sets {', '.join(map(shown, inside))}"
            raise InputError(name, got, "one of them", f"Name it, as in {shown_path(folder / inside[0])}.")
        if is_file(folder / _SPLITS):
            raise InputError(name, f"{_SPLITS} and none of the folders that it names", "a whole copy", "Copy it again.")
        expected = "a folder that datasets' save_to_disk wrote, or a file"
        raise InputError(name, f"a folder without {STATE}", expected, "Give the files in it.")
    state = Fields.read(folder / STATE, InputError)
    if state.content.get("_indices_data_files") or state.content.get("_indices_files"):
        advice = "Save it again with a newer datasets, which writes the rows themselves."
        raise InputError(folder / STATE, "rows that are chosen by indices", "all rows of its files", advice)
    names = [entry.text("filename") for entry in state.objects("_data_files")]
    if odd := next((each for each in names if os.path.basename(each) != each), None):
        raise InputError(folder / STATE, f"the file {shown(odd)}", "one in its folder", CUT)
    if not names:
        raise InputError(folder / STATE, "no files", "one or more", CUT)
    return [os.path.join(path, each) for each in names]
