"""Masks files read back, with their bases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wyr_batch import RunConfig, run
from wyr_batch.errors import InputError
from wyr_batch.masks.bases import bases_of, with_bases
from wyr_batch.masks.drawn import drawn_read
from wyr_batch.masks.file import open_masks

READS = ["ACGTTGCAACGTTGCAAC", "", "acgunNNryTTTGACCA" * 3, "ACGTACGTACGT" * 40]


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reads") / "reads.fa"
    path.write_text("".join(f">r{i} of four\n{sequence}\n" for i, sequence in enumerate(READS)))
    return path


def made(fasta: Path, **options: object) -> Path:
    """Return a masks file of the reads."""
    output = fasta.with_name(f"{'-'.join(map(str, options.values())) or 'plain'}.parquet")
    run(RunConfig((str(fasta),), output, overwrite=True, window_bp=300, **options))  # type: ignore[arg-type]
    return output


@pytest.mark.parametrize("options", [{}, {"mask_dtype": "uint8"}, {"mask_dtype": "float16", "sequences": True}])
def test_rows_come_back_as_they_were_written(fasta: Path, options: dict[str, object]) -> None:
    path = made(fasta, **options)
    masks = open_masks(path)
    assert (masks.n_rows, masks.ranks) == (4, ("superkingdom", "phylum", "genus"))
    assert ("sequence" in masks) == bool(options.get("sequences"))
    (found,) = masks.rows()
    table = pq.read_table(path).to_pydict()
    scale = 255 if options.get("mask_dtype") == "uint8" else 1
    tokens, segments = found.masks(), found.segments()
    for i in range(4):
        values, starts = tokens.of(i)
        np.testing.assert_allclose(values * scale, table["mask"][i] or [], atol=1e-6)
        assert starts.tolist() == (table["token_start"][i] or [])
        of_read = slice(segments.offsets[i], segments.offsets[i + 1])
        assert segments.start[of_read].tolist() == [s["start"] for s in table["segments"][i] or []]
    has_any = np.flatnonzero(np.diff(tokens.offsets))
    assert tokens.ends[tokens.offsets[has_any + 1] - 1].tolist() == [len(READS[i]) for i in has_any]
    assert (tokens.starts < tokens.ends).all()


@pytest.mark.parametrize("options", [{}, {"sequences": True}])
def test_bases_are_those_of_the_reads_in_upper_case(
    fasta: Path, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyr_batch.masks.file.BATCH_ROWS", 3)
    masks = open_masks(made(fasta, **options))
    found = [bases.of(i) for rows, bases in with_bases(masks) for i in range(len(rows))]
    assert found == [read.upper() for read in READS]
    assert bases_of(masks, {2}) == {2: READS[2].upper()}
    if options:
        assert pq.read_table(masks.path, columns=["sequence"])["sequence"].to_pylist() == found


def test_other_reads_are_no_bases_of_these_rows(fasta: Path, tmp_path: Path) -> None:
    masks = open_masks(made(fasta))
    text = fasta.read_text()
    other = tmp_path / "other.fa"
    other.write_text(text.replace("TTTGACCA", "TTTGACC"))
    with pytest.raises(
        InputError, match=r"other\.fa, read 'r2', record 3: got mate 0 of 48 bp, expected 'r2', mate 0 of 51"
    ):
        list(with_bases(masks, [str(other)]))
    other.write_text(text.replace(">r1", ">x1"))
    with pytest.raises(InputError, match=r"read 'x1', record 2: .* expected 'r1'"):
        list(with_bases(masks, [str(other)]))
    other.write_text(text[: text.index(">r3")])
    with pytest.raises(InputError, match=r"the end of the inputs after 3 reads, expected a read for each of 4 rows"):
        list(with_bases(masks, [str(other)]))
    with pytest.raises(InputError, match=r"no file .*gone\.fa among its inputs.*--reads.*--sequences"):
        list(with_bases(masks, [str(tmp_path / "gone.fa")]))


def test_a_file_that_another_tool_wrote_is_read_by_its_columns(fasta: Path, tmp_path: Path) -> None:
    table = pq.read_table(made(fasta, sequences=True))
    path = tmp_path / "sorted.parquet"
    pq.write_table(table.replace_schema_metadata(None).sort_by([("length", "descending")]), path)
    masks = open_masks(path)
    assert masks.footer == {}
    assert bases_of(masks, {0}) == {0: READS[3]}
    pq.write_table(table.drop_columns(["token_start"]), path)
    with pytest.raises(InputError, match=r"sorted\.parquet: got no column 'token_start', expected masks"):
        open_masks(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"sorted\.parquet: got .* expected masks"):
        open_masks(path)


def test_segments_of_a_drawn_read_are_those_of_its_row(fasta: Path) -> None:
    masks = open_masks(made(fasta))
    (rows,) = masks.rows()
    for i in range(4):
        drawn = drawn_read(rows, i, READS[i], masks.ranks)
        expected = rows.column("segments")[i].as_py() or []
        assert drawn.segments() == [(s["start"], s["end"]) for s in expected]
        assert [call.rank for call in drawn.calls] == list(masks.ranks)
        assert all(call.label for call in drawn.calls) == (drawn.status in ("ok", "windowed"))


def test_a_damaged_file_is_said_on_one_line(fasta: Path, tmp_path: Path) -> None:
    content = bytearray(made(fasta).read_bytes())
    for place in range(4, 300):  # headers of pages: Arrow says what is wrong in two lines
        content[place] ^= 0xFF
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(content)
    with pytest.raises(
        InputError, match=r"page header failed.* after 0 rows, expected an undamaged Parquet file"
    ) as raised:
        list(open_masks(damaged).rows())
    assert "\n" not in str(raised.value)
