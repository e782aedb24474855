"""`convert --to fasta` and `--to fastq`, read back with pysam and compared with the reads themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pysam
import pytest
from mask_files import FastqRead, Row, fastq_reads, fastq_text, write_masks
from read_files import zstd_of

from wyr_batch.cli import main
from wyr_batch.masks.bases import with_bases
from wyr_batch.masks.file import open_masks

READS = fastq_reads(24)
RNA = bytes.maketrans(b"ACGTNacgt", b"TGCANtgca")


def bam(path: Path, reads: list[FastqRead]) -> None:
    """Write a BAM in which every second read lies on the reverse strand, with a supplementary record in between."""
    header = pysam.AlignmentHeader.from_dict({"SQ": [{"SN": "chr1", "LN": 10_000}]})
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for i, read in enumerate(reads):
            record = pysam.AlignedSegment(header)
            record.query_name = read.read_id
            reverse = i % 2 == 1
            bases = read.bases.upper()
            record.query_sequence = bases.translate(RNA)[::-1] if reverse else bases
            qualities = read.qualities[::-1] if reverse else read.qualities
            record.query_qualities_str = qualities
            record.flag = 16 if reverse else 0
            record.reference_id, record.reference_start = 0, i
            record.cigartuples = [(0, len(bases))] if bases else None
            file.write(record)
            record.flag |= 0x800
            file.write(record)


def sam(path: Path, reads: list[FastqRead]) -> None:
    bam(path.with_suffix(".bam"), reads)
    path.write_text(pysam.view("-h", str(path.with_suffix(".bam"))))


WRITERS: dict[str, Callable[[Path, list[FastqRead]], object]] = {
    "fq": lambda path, reads: path.write_text(fastq_text(reads)),
    "fq.zst": lambda path, reads: path.write_bytes(zstd_of(fastq_text(reads).encode())),
    "bam": bam,
    "sam": sam,
}


def run(folder: Path, *words: object) -> Path:
    output = folder / "masks.parquet"
    assert main(["run", *map(str, words), "-q", "-t", "1", "--window", "300", "-o", str(output), "--overwrite"]) == 0
    return output


def records(masks: Path, to: str, *words: str) -> list[tuple[str, str, str, str | None]]:
    """Return name, comment, bases and qualities of the records of a conversion."""
    output = masks.with_name(f"out.{to}")
    assert main(["convert", str(masks), "--to", to, "-o", str(output), "--overwrite", "-q", *words]) == 0
    with pysam.FastxFile(str(output)) as file:
        return [(entry.name, entry.comment, entry.sequence or "", entry.quality) for entry in file]


@pytest.mark.parametrize("form", WRITERS)
def test_records_are_slices_of_the_reads(form: str, tmp_path: Path) -> None:
    # SAM has no way to tell one base of quality 9 from no quality; reads without bases are for FASTQ.
    reads = [read for read in READS if read.bases] if form in ("bam", "sam") else READS
    WRITERS[form](tmp_path / f"reads.{form}", reads)
    masks = run(tmp_path, tmp_path / f"reads.{form}", "--sequences")
    rows = pq.read_table(masks).to_pylist()
    expected = [
        (
            f"{row['read_id']}:{s['start']}-{s['end']}",
            read.bases[s["start"] : s["end"]].upper(),
            read.qualities[s["start"] : s["end"]],
        )
        for read, row in zip(reads, rows, strict=True)
        for s in row["segments"] or []
    ]
    fastq = records(masks, "fastq")
    assert [(name, bases, quality) for name, _, bases, quality in fastq] == expected
    assert [record[:3] for record in records(masks, "fasta")] == [record[:3] for record in fastq]
    comments = [
        f"superkingdom={row['superkingdom']};phylum={row['phylum']};genus={row['genus']};mean={s['mean']:.3f}"
        for row in rows
        for s in row["segments"] or []
    ]
    assert [comment.rstrip("0").rstrip(".") for _, comment, _, _ in fastq] == [
        comment.rstrip("0").rstrip(".") for comment in comments
    ]


def test_whole_reads_have_n_where_the_mask_hides(tmp_path: Path) -> None:
    WRITERS["fq"](tmp_path / "reads.fq", READS)
    masks = run(tmp_path, tmp_path / "reads.fq")
    reads = {read.read_id: read for read in READS if read.bases}
    found = records(masks, "fastq", "--hidden", "n")
    assert [name for name, *_ in found] == list(reads), "the read without bases has no mask"
    segments = {row["read_id"]: row["segments"] for row in pq.read_table(masks).to_pylist()}
    for name, _, bases, quality in found:
        read = reads[name]
        kept = [any(s["start"] <= i < s["end"] for s in segments[name]) for i in range(len(read.bases))]
        assert bases == "".join(b if k else "N" for b, k in zip(read.bases.upper(), kept, strict=True))
        assert quality == "".join(q if k else "!" for q, k in zip(read.qualities, kept, strict=True))


def test_mates_of_two_files_have_names_of_their_own(tmp_path: Path) -> None:
    first = [read for read in READS if read.bases]
    second = [read._replace(bases=read.bases[::-1], qualities=read.qualities[::-1]) for read in first]
    for i, reads in enumerate((first, second)):
        (tmp_path / f"R{i + 1}.fq").write_text(fastq_text(reads))
    masks = run(tmp_path, "--paired", tmp_path / "R1.fq", tmp_path / "R2.fq")
    (tmp_path / "R2.fq").rename(tmp_path / "moved.fq")
    words = ("--hidden", "n", "--reads", str(tmp_path / "R1.fq"), "--reads", str(tmp_path / "moved.fq"))
    found = {name: (bases, quality) for name, _, bases, quality in records(masks, "fastq", *words)}
    assert set(found) == {f"{read.read_id}/{mate}" for read in first for mate in (1, 2)}
    pairs = [(read, 1) for read in first] + [(read, 2) for read in second]
    for read, mate in pairs:
        bases, quality = found[f"{read.read_id}/{mate}"]
        places = zip(bases, quality or "", read.bases.upper(), read.qualities, strict=True)
        assert all((base, value) in ((own, own_value), ("N", "!")) for base, value, own, own_value in places)
    assert any(set(bases) & set("ACGT") for bases, _ in found.values())


def test_packed_fasta_can_be_indexed(tmp_path: Path) -> None:
    WRITERS["fq"](tmp_path / "reads.fq", READS)
    masks, packed = run(tmp_path, tmp_path / "reads.fq"), tmp_path / "out.fa.gz"
    assert main(["convert", str(masks), "--to", "fasta", "--hidden", "n", "-o", str(packed), "-q"]) == 0
    pysam.faidx(str(packed))
    with pysam.FastaFile(str(packed)) as index:
        assert list(index.references) == [read.read_id for read in READS if read.bases]
        assert list(index.lengths) == [len(read.bases) for read in READS if read.bases]


def test_inputs_without_qualities_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reads = READS[2:6]
    fasta, no_quality = tmp_path / "reads.fa", tmp_path / "reads.sam"
    fasta.write_text("".join(f">{read.read_id}\n{read.bases}\n" for read in reads))
    sam(no_quality, reads)
    lines = no_quality.read_text().splitlines(keepends=True)
    lines = [line.replace(reads[2].qualities[::-1], "*").replace(reads[2].qualities, "*") for line in lines]
    no_quality.write_text("".join(lines))
    pysam.view("-b", "-o", str(tmp_path / "reads.bam"), str(no_quality), catch_stdout=False)
    for name, place in (("reads.fa", "record 1"), ("reads.sam", "read 'r4', record 5"), ("reads.bam", "record 5")):
        masks = run(tmp_path, tmp_path / name)
        assert main(["convert", str(masks), "--to", "fasta", "-o", str(tmp_path / "out"), "--overwrite", "-q"]) == 0
        capsys.readouterr()
        assert main(["convert", str(masks), "--to", "fastq", "-o", str(tmp_path / "out.fq"), "-q"]) == 1
        said = capsys.readouterr().err
        assert name in said
        assert place in said
        assert "got no qualities, expected one a base. Convert to FASTA instead." in said
        assert not (tmp_path / "out.fq").exists()
    masks = write_masks(tmp_path / "foreign.parquet", [Row("r", 6, [1.0])])
    assert main(["convert", str(masks), "--to", "fastq", "-q"]) == 1
    assert "no inputs in its footer, expected those with the qualities. Name them with --reads." in (
        capsys.readouterr().err
    )


def test_qualities_stay_with_their_bases_in_pieces_of_any_size(tmp_path: Path, small_chunks: None) -> None:
    WRITERS["fq"](tmp_path / "reads.fq", READS)
    found = [
        (bases.of(i), bases.part(i, i + 1).qualities)
        for rows, bases in with_bases(open_masks(run(tmp_path, tmp_path / "reads.fq")), qualities=True)
        for i in range(len(rows))
    ]
    assert [(text, bytes(part).decode()) for text, part in found if part is not None] == [
        (read.bases.upper(), read.qualities) for read in READS
    ]
