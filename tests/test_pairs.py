"""Mates from two files, or from one, are the same rows; what does not pair ends the run after the good pairs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wyr_batch.cli import main
from wyr_batch.errors import InputError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.open import Reads
from wyr_batch.reads.pairs import interleaved_chunks, paired_chunks

Rows = list[tuple[str, int, str]]


def rows_of(chunks: list[ReadChunk]) -> Rows:
    rows = []
    for chunk in chunks:
        assert len(chunk) % 2 == 0
        text = chunk.bases.tobytes().decode()
        reads = [text[a:b] for a, b in zip(chunk.offsets[:-1], chunk.offsets[1:], strict=True)]
        rows += list(zip(chunk.ids.to_pylist(), chunk.mates.tolist(), reads, strict=True))
    return rows


def write_fasta(path: Path, reads: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in reads) or ">x\n")
    return path


@settings(max_examples=40, deadline=None)
@given(
    mates=st.lists(st.tuples(st.text("ACGTN", max_size=9), st.text("ACGTN", max_size=9)), min_size=1, max_size=40),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    suffixes=st.sampled_from([("", ""), ("/1", "/2"), (".7.1", ".7.2")]),
)
def test_two_files_and_one_interleaved_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    mates: list[tuple[str, str]],
    sizes: tuple[int, int, int],
    suffixes: tuple[str, str],
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    names = [tuple(f"p{i}{suffix}" for suffix in suffixes) for i in range(len(mates))]
    sides = [[(names[i][side], pair[side]) for i, pair in enumerate(mates)] for side in (0, 1)]
    one, two = (write_fasta(folder / f"R{i + 1}.fa", side) for i, side in enumerate(sides))
    both = write_fasta(folder / "both.fa", [read for pair in zip(*sides, strict=True) for read in pair])
    expected = [(name, i + 1, sequence) for pair in zip(*sides, strict=True) for i, (name, sequence) in enumerate(pair)]
    with Reads(one, chunk_reads=sizes[0]) as a, Reads(two, chunk_reads=sizes[1]) as b:
        assert rows_of(list(paired_chunks(a, b))) == expected
    with Reads(both, chunk_reads=sizes[2]) as reads:
        assert rows_of(list(interleaved_chunks(reads))) == expected


@pytest.mark.parametrize(
    ("second", "n_good", "message"),
    [
        (["a", "b", "x", "d"], 2, "record 3: got 'c' and 'x', expected mates of one name"),
        (["a", "b", "c"], 3, r"R2\.fa, record 4: got the end of the file after 3 reads"),
        (["a", "b", "c", "d", "e"], 4, r"R1\.fa, record 5: got the end of the file after 4 reads"),
    ],
)
def test_what_does_not_pair_is_an_error_after_the_good_pairs(
    tmp_path: Path, second: list[str], n_good: int, message: str
) -> None:
    one = write_fasta(tmp_path / "R1.fa", [(name, "ACGT") for name in "abcd"])
    two = write_fasta(tmp_path / "R2.fa", [(name, "TTTT") for name in second])
    got: list[ReadChunk] = []
    with Reads(one, chunk_reads=3) as a, Reads(two, chunk_reads=2) as b, pytest.raises(InputError, match=message):
        got.extend(paired_chunks(a, b))
    assert len(rows_of(got)) == 2 * n_good


@pytest.mark.parametrize(
    ("names", "n_good", "message"),
    [("aabbcd", 2, "record 5: got 'c' followed by 'd'"), ("aabbc", 2, "read 'c', record 5: got the end of the file")],
)
def test_interleaved_that_is_not(tmp_path: Path, names: str, n_good: int, message: str) -> None:
    path = write_fasta(tmp_path / "both.fa", [(name, "ACGT") for name in names])
    got: list[ReadChunk] = []
    with Reads(path, chunk_reads=3) as reads, pytest.raises(InputError, match=message):
        got.extend(interleaved_chunks(reads))
    assert len(rows_of(got)) == 2 * n_good


@pytest.mark.parametrize("names", [("a/1", "a/1"), ("SRR1.1", "SRR1.2"), ("SRR1.7.1", "SRR1.8.2")])
def test_names_that_look_like_mates_and_are_not(tmp_path: Path, names: tuple[str, str]) -> None:
    one, two = (write_fasta(tmp_path / f"{i}.fa", [(name, "ACGT")]) for i, name in enumerate(names))
    with Reads(one) as a, Reads(two) as b, pytest.raises(InputError, match="expected mates of one name"):
        list(paired_chunks(a, b))


def test_pairs_of_two_lanes_are_rows_with_file_and_mate(tmp_path: Path) -> None:
    files = []
    for lane in "AB":
        for mate in "12":
            names = [(f"{lane}{i}", "ACGTACGTACGT" * int(mate)) for i in range(3)]
            files.append(str(write_fasta(tmp_path / f"{lane} R{mate}.fa", names)))
    output = tmp_path / "masks.parquet"
    assert main(["run", "--paired", *files, "-q", "-o", str(output)]) == 0
    table = pq.read_table(output)
    assert table["read_id"].to_pylist() == [name for name in ("A0", "A1", "A2", "B0", "B1", "B2") for _ in (1, 2)]
    assert table["mate"].to_pylist() == [1, 2] * 6
    assert table["length"].to_pylist() == [12, 24] * 6
    assert table["file"].cast(pa.string()).to_pylist() == [files[0]] * 6 + [files[2]] * 6
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(files) + "\n")
    again = tmp_path / "again.parquet"
    assert main(["run", "-X", str(listed), "--paired", "-q", "-o", str(again)]) == 0
    assert pq.read_table(again).equals(table)
    assert main(["run", "--paired", files[0], "-o", str(tmp_path / "no.parquet")]) == 2


@pytest.mark.parametrize("flag", ["--paired", "--interleaved"])
def test_maximum_that_cuts_a_pair_is_an_error(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "masks.parquet"
    if flag == "--paired":
        files = [str(write_fasta(tmp_path / f"R{i}.fa", [(name, "ACGTACGT") for name in "abc"])) for i in (1, 2)]
    else:
        files = [str(write_fasta(tmp_path / "both.fa", [(name, "ACGTACGT") for name in "aabbcc"]))]
    assert main(["run", flag, *files, "-n", "3", "-o", str(output)]) == 2
    assert f"--max-reads: got 3 with {flag}, expected an even number" in capsys.readouterr().err
    assert not output.exists()
    assert main(["run", flag, *files, "-n", "4", "-q", "-o", str(output)]) == 0
    rows = pq.read_table(output)
    assert (rows["read_id"].to_pylist(), rows["mate"].to_pylist()) == (["a", "a", "b", "b"], [1, 2, 1, 2])
