"""Masks as a tag of the input's records, and along the reference: equal to a plain count, base by base."""

from __future__ import annotations

import gzip
import itertools
import random
import struct
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import mappy
import numpy as np
import pyarrow.parquet as pq
import pyBigWig
import pysam
import pytest
from alignment_files import (
    CONTIGS,
    DUPLICATE,
    QC_FAIL,
    REVERSE,
    SECONDARY,
    SUPPLEMENTARY,
    Read,
    Record,
    random_read,
    random_records,
    record_of,
    turned,
    write_alignments,
    write_masks,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from wyr_batch import RunConfig, run
from wyr_batch.aligned import bigwig, tally
from wyr_batch.cli import main
from wyr_batch.convert.bam import with_program

Values = dict[tuple[str, int], list[float]]
BAM_RECORD = struct.Struct("<i")


def convert(masks: Path, *words: object) -> int:
    return main(["convert", str(masks), *map(str, words), "--debug"])


def refusal(masks: Path, *words: object, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a conversion says that is refused, and leaves nothing behind."""
    before = sorted(path.name for path in masks.parent.iterdir())
    capsys.readouterr()
    assert main(["convert", str(masks), *map(str, words)]) in (1, 2)
    assert sorted(path.name for path in masks.parent.iterdir()) == before
    said = capsys.readouterr().err
    assert "unexpected" not in said
    return said


def raw_bam(path: Path) -> tuple[str, list[bytes]]:
    """Return header text and records of a BAM file, byte for byte. Source: SAM specification, section 4.2."""
    data = gzip.decompress(path.read_bytes())
    assert data[:4] == b"BAM\1"
    (n_text,) = BAM_RECORD.unpack_from(data, 4)
    text, at = data[8 : 8 + n_text].rstrip(b"\0").decode(), 8 + n_text
    (n_sequences,) = BAM_RECORD.unpack_from(data, at)
    at += 4
    for _ in range(n_sequences):
        at += 8 + BAM_RECORD.unpack_from(data, at)[0]
    records = []
    while at < len(data):
        (n_bytes,) = BAM_RECORD.unpack_from(data, at)
        records.append(data[at + 4 : at + 4 + n_bytes])
        at += 4 + n_bytes
    return text, records


def plain_values(records: list[Record], min_mapq: int = 0) -> Values:
    """Return all mask values at each base of the reference, worked out one base at a time."""
    primary = {(read.name, read.mate): record for record, read in records if not record.flag & 0x900}
    values: Values = defaultdict(list)
    for record, read in records:
        if record.flag & (0x4 | SECONDARY | QC_FAIL | DUPLICATE) or record.mapping_quality < min_mapq or not read.mask:
            continue
        if any(read.clips) and primary[read.name, read.mate].is_unmapped:
            continue  # its hard clips are not known
        whole = [None] * read.clips[0] + read.mask + [None] * read.clips[1]
        as_it_stands = whole[::-1] if record.is_reverse else whole
        operation, n_clipped = record.cigartuples[0]
        before = n_clipped if operation == 5 else 0
        for at, place in record.get_aligned_pairs(matches_only=True):
            if (value := as_it_stands[before + at]) is not None:
                values[record.reference_name, place].append(value)
    return values


def bigwig_values(path: Path) -> dict[tuple[str, int], float]:
    with pyBigWig.open(str(path)) as file:
        return {
            (name, place): value
            for name in file.chroms()
            for start, end, value in file.intervals(name) or ()
            for place in range(start, end)
        }


def bedgraph_values(path: Path) -> dict[tuple[str, int], float]:
    """Return the value of each base; runs are apart or of other values, and in order."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    fields = [line.split("\t") for line in text.splitlines()]
    runs = [(name, int(start), int(end), float(value)) for name, start, end, value in fields]
    order = list(CONTIGS)
    assert runs == sorted(runs, key=lambda found: (order.index(found[0]), found[1]))
    for (name, _, end, value), (next_name, start, _, next_value) in itertools.pairwise(runs):
        assert name != next_name or end < start or (end == start and value != next_value)
    return {(name, place): value for name, start, end, value in runs for place in range(start, end)}


def assert_means(found: dict[tuple[str, int], float], values: Values) -> None:
    assert found.keys() == values.keys()
    for place, value in found.items():
        assert value == pytest.approx(np.mean(values[place]), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n_reads=st.integers(0, 14),
    more=st.booleans(),
    min_mapq=st.sampled_from([0, 10]),
    is_sorted=st.booleans(),
)
def test_tracks_are_what_a_plain_count_gives(
    seed: int, n_reads: int, more: bool, min_mapq: int, is_sorted: bool
) -> None:
    header, records = random_records(random.Random(seed), n_reads, more)
    if is_sorted:
        records.sort(key=lambda found: (found[0].reference_id % 2**31, found[0].reference_start))
    values = plain_values(records, min_mapq)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setattr(tally, "TILE_BASES", 64)
        patch.setattr(tally, "_BATCH_PIECES", 5)
        masks = write_alignments(folder / "in.bam", header, records)
        options = ("--min-mapq", min_mapq, "--coverage", folder / "counts.bw", "-q")
        assert convert(masks, "--to", "reference", "-o", folder / "means.bw", *options) == 0
        options = ("--min-mapq", min_mapq, "--coverage", folder / "counts.bedgraph.gz", "-q")
        assert convert(masks, "--to", "reference", "-o", folder / "means.bedGraph", *options) == 0
        assert_means(bigwig_values(folder / "means.bw"), values)
        assert_means(bedgraph_values(folder / "means.bedGraph"), values)
        counts = {place: len(found) for place, found in values.items()}
        assert bigwig_values(folder / "counts.bw") == bedgraph_values(folder / "counts.bedgraph.gz") == counts
        assert not list(folder.glob(".*")), "nothing is left of scratch files"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), n_reads=st.integers(0, 12))
def test_records_get_their_masks_and_stay_the_same_otherwise(seed: int, n_reads: int) -> None:
    header, records = random_records(random.Random(seed), n_reads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        masks = write_alignments(folder / "in.bam", header, records)
        assert convert(masks, "--to", "bam", "-o", folder / "out.bam", "-q") == 0
        pysam.quickcheck(str(folder / "out.bam"))
        text, written = raw_bam(folder / "out.bam")
        before, original = raw_bam(folder / "in.bam")
        assert text.startswith(before)
        assert text[len(before) :].startswith("@PG\tID:wyr-batch\tPN:wyr-batch\t")
        assert len(written) == len(records)
        for (record, read), old, new in zip(records, original, written, strict=True):
            mask = read.mask[::-1] if record.is_reverse else read.mask
            tag = b"wmBC" + struct.pack("<I", len(mask)) + bytes(round(255 * value) for value in mask)
            has_tag = mask and not record.flag & (SECONDARY | SUPPLEMENTARY)
            assert new == (old + tag if has_tag else old)


HEADER = pysam.AlignmentHeader.from_dict(
    {
        "HD": {"VN": "1.6", "SO": "coordinate"},
        "SQ": [{"SN": "one", "LN": 400}],
        "PG": [{"ID": "bwa", "PN": "bwa"}, {"ID": "wyr-batch", "PN": "wyr-batch", "PP": "bwa"}],
    }
)
FLAT = Read("flat", 0, "ACGTTG", [0.25] * 6)


def flat_record(cigar: str, place: int = 10, flag: int = 0, read: Read = FLAT, mapq: int = 60) -> Record:
    return record_of(
        HEADER, read, flag, (0, place), cigar, mapq, turned(read.bases) if flag & REVERSE else read.bases
    ), read


def test_a_program_line_of_its_own_goes_on_from_the_last() -> None:
    lines = with_program(str(HEADER)).splitlines()
    assert lines[:-1] == str(HEADER).splitlines()
    assert lines[-1].split("\t")[:3] == ["@PG", "ID:wyr-batch.1", "PN:wyr-batch"]
    assert lines[-1].split("\t")[4] == "PP:wyr-batch"


def test_an_older_tag_is_replaced_or_taken_away(tmp_path: Path) -> None:
    other = random_read(random.Random(1), "other", n_bases=6)
    records = [
        flat_record("6M"),
        flat_record("6M", flag=SECONDARY),
        flat_record("6M", read=Read("x", 0, other.bases, [])),
    ]
    for record, _ in records:
        record.set_tag("wm", 7)
    masks = write_alignments(tmp_path / "in.sam", HEADER, records)
    assert convert(masks, "--to", "bam", "-o", tmp_path / "out.bam") == 0
    lines = pysam.view(str(tmp_path / "out.bam")).splitlines()
    assert [line.split("\t")[14:] for line in lines] == [["wm:B:C" + ",64" * 6], [], []]


@pytest.mark.parametrize("form", ["sam", "cram"])
def test_other_formats_give_what_bam_does(form: str, tmp_path: Path) -> None:
    header, records = random_records(random.Random(5), 30)
    masks = write_alignments(tmp_path / "in.bam", header, records)
    words = ["-O", "cram", "--output-fmt-option", "no_ref=1"] if form == "cram" else ["-h"]
    pysam.view(*words, "-o", str(tmp_path / f"in.{form}"), str(tmp_path / "in.bam"), catch_stdout=False)
    for to in ("bam", "reference"):
        for name in ("in.bam", f"in.{form}"):
            output = tmp_path / f"{name}.{'bam' if to == 'bam' else 'bedgraph'}"
            assert convert(masks, "--to", to, "--reads", tmp_path / name, "-o", output) == 0
    assert (tmp_path / f"in.{form}.bedgraph").read_bytes() == (tmp_path / "in.bam.bedgraph").read_bytes() != b""
    lines = [pysam.view(str(tmp_path / f"{name}.bam")).splitlines() for name in ("in.bam", f"in.{form}")]
    tags = [[line.partition("\twm:")[2] for line in written] for written in lines]
    assert tags[0] == tags[1]
    assert any(tags[0])
    assert [line.partition("\twm:")[0] for line in lines[1]] == pysam.view(str(tmp_path / f"in.{form}")).splitlines()


def test_padding_has_neither_bases_nor_places(tmp_path: Path) -> None:
    read = Read("padded", 0, "ACGNNN", [1, 1, 1, 0, 0.5, 1])
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("3M2P1I1N2M", read=read)])
    assert convert(masks, "--to", "reference", "-o", tmp_path / "out.bedgraph") == 0
    assert (tmp_path / "out.bedgraph").read_text() == "one\t10\t13\t1\none\t14\t15\t0.5\none\t15\t16\t1\n"


def test_rank_masks_and_standard_output(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("6M")])
    table = pq.read_table(masks)
    doubled = table["mask"].combine_chunks().flatten().to_numpy() * 2
    column = [doubled.tolist()]
    metadata = table.schema.metadata
    pq.write_table(table.append_column("mask_genus", [column]).replace_schema_metadata(metadata), masks)
    assert convert(masks, "--to", "reference", "--rank-mask", "genus") == 0
    assert capfdbinary.readouterr().out == b"one\t10\t16\t0.5\n"
    assert convert(masks, "--to", "bam", "--rank-mask", "genus", "-o", tmp_path / "out.bam") == 0
    assert pysam.view(str(tmp_path / "out.bam")).rstrip().endswith("wm:B:C" + ",128" * 6)


def test_supplementary_alignments_without_a_mask_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, twice = (Read(name, 0, FLAT.bases, FLAT.mask) for name in ("alone", "twice"))
    records = [
        flat_record("6M", read=twice),
        flat_record("6M", read=twice),
        flat_record("6M"),
        flat_record("2H3M", flag=SUPPLEMENTARY),
        flat_record("6H3M", flag=SUPPLEMENTARY, read=twice),
        flat_record("3M3H", flag=SUPPLEMENTARY, read=alone),
    ]
    for record, _ in records[3:]:
        record.query_sequence = "ACG"
    masks = write_alignments(tmp_path / "in.bam", HEADER, records)
    assert convert(masks, "--to", "reference", "-o", tmp_path / "out.bedgraph", "--coverage", tmp_path / "n.bg") == 0
    assert (tmp_path / "n.bg").read_text() == "one\t10\t16\t3\n"
    said = capsys.readouterr().err
    assert "1 supplementary alignments left out: no primary alignment with a mask" in said
    assert "1 supplementary alignments left out: several reads of their name" in said
    assert "1 supplementary alignments left out: another length than their primary alignment's" in said


@pytest.mark.parametrize("tile_bases", [100, 90, 37])
def test_runs_go_on_over_tiles_but_not_over_sequences(
    tile_bases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "TILE_BASES", tile_bases)
    header = pysam.AlignmentHeader.from_references(["one", "two"], [300, 20])
    long, short = (Read(name, 0, "A" * n, [0.5] * n) for name, n in (("long", 300), ("short", 20)))
    records = [(record_of(header, long, 0, (0, 0), "300M", 9, long.bases), long)]
    records.append((record_of(header, short, REVERSE, (1, 0), "20M", 9, turned(short.bases)), short))
    masks = write_alignments(tmp_path / "in.bam", header, records)
    assert convert(masks, "--to", "reference", "-o", tmp_path / "out.bedgraph") == 0
    assert (tmp_path / "out.bedgraph").read_text() == "one\t0\t300\t0.5\ntwo\t0\t20\t0.5\n"


def test_an_input_without_places_gives_an_empty_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("6M", flag=DUPLICATE)])
    for name in ("out.bedgraph", "out.bw"):
        assert convert(masks, "--to", "reference", "-o", tmp_path / name) == 0
    assert "no read has a place, so the track is empty" in capsys.readouterr().err
    assert (tmp_path / "out.bedgraph").read_text() == ""
    assert bigwig_values(tmp_path / "out.bw") == {}
    with pyBigWig.open(str(tmp_path / "out.bw")) as file:
        assert file.chroms() == {"one": 400}


@pytest.mark.parametrize("form", ["bam", "reference"])
def test_inputs_that_are_not_those_of_the_masks(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: object) -> str:
        name = tmp_path / f"out.{'bam' if form == 'bam' else 'bw'}"
        return refusal(masks, "--to", form, "-o", name, *words, capsys=capsys)

    other = Read("other", 0, "ACGTT", [1.0] * 5)
    (tmp_path / "one").mkdir()
    write_alignments(tmp_path / "one" / "in.bam", HEADER, [flat_record("6M"), flat_record("5M", read=other)])
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("6M")])
    assert "got more than 1 primary records, expected one for each of 1 rows" in said(
        "--reads", tmp_path / "one/in.bam"
    )
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("6M"), flat_record("6M"), flat_record("6M")])
    message = "read 'other', primary record 2: got mate 0 of 5 bp, expected 'flat', mate 0 of 6 bp, as in row 2 of "
    assert message in said("--reads", tmp_path / "one/in.bam")
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("6M"), flat_record("5M", read=other)])
    pysam.AlignmentFile(str(tmp_path / "one/in.bam"), "wb", header=HEADER).close()
    assert "got the end after 0 primary records, expected one for each of 2" in said("--reads", tmp_path / "one/in.bam")
    (tmp_path / "reads.fa").write_text(">flat\nACGTTG\n")
    assert "reads.fa: got FASTA, the input of " in said("--reads", tmp_path / "reads.fa")
    both = ("--reads", tmp_path / "in.bam", "--reads", tmp_path / "one/in.bam")
    assert "got 2 inputs, expected one SAM, BAM or CRAM file. Merge them (samtools merge)" in said(*both)
    data = (tmp_path / "in.bam").read_bytes()
    (tmp_path / "one/in.bam").write_bytes(data[:-40])
    assert "in.bam: got 'no BGZF EOF marker; file may be truncated', expected" in said(
        "--reads", tmp_path / "one/in.bam"
    )


def test_max_reads_leaves_the_other_records_without_tag(tmp_path: Path) -> None:
    other = random_read(random.Random(1), "other", n_bases=6)
    records = [flat_record("6M"), flat_record("6M", read=other)]
    masks = write_alignments(tmp_path / "in.bam", HEADER, records)
    write_masks(masks, [FLAT], tmp_path / "in.bam", max_reads=1)
    assert convert(masks, "--to", "bam", "-o", tmp_path / "out.bam") == 0
    lines = pysam.view(str(tmp_path / "out.bam")).splitlines()
    assert [line.split("\t")[14:] for line in lines] == [["wm:B:C" + ",64" * 6], []]


def test_interleaved_mates_are_numbered_in_turn(tmp_path: Path) -> None:
    mates = [Read("pair", mate, FLAT.bases, FLAT.mask) for mate in (1, 2)]
    records = [flat_record("6M", read=Read("pair", 0, FLAT.bases, FLAT.mask)) for _ in mates]
    masks = write_alignments(tmp_path / "in.bam", HEADER, records)
    write_masks(masks, mates, tmp_path / "in.bam", interleaved=True)
    assert convert(masks, "--to", "reference", "-o", tmp_path / "out.bedgraph") == 0
    assert (tmp_path / "out.bedgraph").read_text() == "one\t10\t16\t0.25\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "flat\t0\tone\t399\t60\t6M\t*\t0\t0\tACGTTG\t*",
            "'flat': got an alignment up to base 404 of 'one', expected at",
        ),
        (
            "flat\t0\ttwo\t3\t60\t6M\t*\t0\t0\tACGTTG\t*",
            "'flat': got an alignment to a sequence that the header does not",
        ),
    ],
)
def test_alignments_that_cannot_be_right(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.sam"
    source.write_text(f"@SQ\tSN:one\tLN:400\n{line}\n")
    masks = write_masks(tmp_path / "masks.parquet", [FLAT], source)
    assert message in refusal(masks, "--to", "reference", "-o", tmp_path / "out.bw", capsys=capsys)
    source.write_text("@HD\tVN:1.6\nflat\t4\t*\t0\t0\t*\t*\t0\t0\tACGTTG\t*\n")
    assert "a header without @SQ lines" in refusal(masks, "--to", "reference", capsys=capsys)


def test_outputs_are_checked_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write_alignments(tmp_path / "in.bam", HEADER, [flat_record("6M")])

    def said(*words: object) -> str:
        return refusal(masks, "--to", *words, capsys=capsys)

    (tmp_path / "there.bw").write_text("")
    assert "a name ending in .bedgraph" in said("reference", "-o", tmp_path / "out.txt")
    assert "a name ending in .bedgraph" in said("reference", "-o", tmp_path / "a.bw", "--coverage", tmp_path / "b.wig")
    assert "a file that exists" in said("reference", "-o", tmp_path / "there.bw")
    assert "a file that exists" in said("reference", "--coverage", tmp_path / "there.bw")
    assert "--min-mapq: got 256, expected 0 to 255" in said("reference", "--min-mapq", 256)
    assert "the input" in said("bam", "-o", tmp_path / "in.bam", "--overwrite")
    assert "this output is no stream" in said("bam")
    (tmp_path / "device.bw").symlink_to("/dev/null")
    assert "a device" in said("reference", "-o", tmp_path / "device.bw")
    with monkeypatch.context() as patch:
        patch.setattr(bigwig, "_SPARE_BYTES", 1 << 60)
        assert "MB of free space, expected 1,0" in said("reference", "-o", tmp_path / "out.bw")
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    assert "pip install 'wyr-batch[bigwig]'" in said("reference", "-o", tmp_path / "out.bw")


def mutated(chosen: random.Random, bases: str) -> str:
    """Return bases with some of them replaced, left out or put in."""
    pieces = []
    for base in bases:
        kind = chosen.random()
        pieces.append(
            base if kind > 0.03 else {0: "", 1: base + chosen.choice("ACGT"), 2: chosen.choice("ACGT")}[int(kind * 100)]
        )
    return "".join(pieces)


def mapped(aligner: mappy.Aligner, header: pysam.AlignmentHeader, name: str, bases: str) -> list[pysam.AlignedSegment]:
    """Return the records of a read as minimap2 writes them, supplementary ones hard-clipped."""
    records = []
    for hit in [hit for hit in aligner.map(bases) if hit.is_primary]:
        is_reverse = hit.strand < 0
        strand = turned(bases) if is_reverse else bases
        clips = (hit.q_st, len(bases) - hit.q_en)[:: -1 if is_reverse else 1]
        letter = "H" if records else "S"
        middle = "".join(f"{n}{'MIDNSHP=X'[operation]}" for n, operation in hit.cigar)
        first, last = (f"{n}{letter}" if n else "" for n in clips)
        shown = strand[clips[0] : len(bases) - clips[1]] if records else strand
        flag = (SUPPLEMENTARY if records else 0) | (REVERSE if is_reverse else 0)
        read = Read(name, 0, bases, [])
        place = (header.references.index(hit.ctg), hit.r_st)
        records.append(record_of(header, read, flag, place, first + middle + last, hit.mapq, shown))
    return records or [record_of(header, Read(name, 0, bases, []), 0x4, (-1, -1), "", 0, bases)]


def test_mapped_reads_from_run_to_track(tmp_path: Path) -> None:
    chosen = random.Random(3)
    genome = {name: "".join(chosen.choices("ACGT", k=n)) for name, n in (("big", 10_000), ("small", 2_500))}
    with (tmp_path / "genome.fa").open("w") as file:
        file.writelines(f">{name}\n{bases}\n" for name, bases in genome.items())
    aligner = mappy.Aligner(str(tmp_path / "genome.fa"), preset="map-ont")
    header = pysam.AlignmentHeader.from_references(list(genome), [len(bases) for bases in genome.values()])

    def sampled(n: int) -> str:
        bases = genome["small" if chosen.random() < 0.2 else "big"]
        at = chosen.randrange(len(bases) - n)
        bases = mutated(chosen, bases[at : at + n])
        return bases if chosen.random() < 0.5 else turned(bases)

    reads = {f"r{i}": sampled(150) + sampled(150) if i % 10 == 0 else sampled(300) for i in range(500)}
    records = [record for name, bases in reads.items() for record in mapped(aligner, header, name, bases)]
    assert sum(record.is_supplementary for record in records) > 25
    with pysam.AlignmentFile(str(tmp_path / "unsorted.bam"), "wb", header=header) as out:
        for record in records:
            out.write(record)
    pysam.sort("-o", str(tmp_path / "in.bam"), str(tmp_path / "unsorted.bam"))
    config = RunConfig((str(tmp_path / "in.bam"),), tmp_path / "masks.parquet", threads=1, mask_dtype="uint8")
    run(config)

    words = ("--coverage", tmp_path / "counts.bw", "-o", tmp_path / "means.bw")
    assert convert(tmp_path / "masks.parquet", "--to", "reference", *words) == 0
    rows = pq.read_table(tmp_path / "masks.parquet", columns=["read_id", "mask", "token_start"]).to_pylist()
    known = {}
    for row in rows:
        bounds = [*row["token_start"], len(reads[row["read_id"]])]
        tokens = zip(row["mask"], itertools.pairwise(bounds), strict=True)
        known[row["read_id"]] = [value / 255 for value, (start, end) in tokens for _ in range(start, end)]
    values = plain_values([(record, Read(record.query_name, 0, "", known[record.query_name])) for record in records])
    assert len(values) > 11_250
    assert_means(bigwig_values(tmp_path / "means.bw"), values)
    lines = [line.split("\t") for line in pysam.depth(str(tmp_path / "in.bam")).splitlines()]
    depth = {(name, int(place) - 1): int(n) for name, place, n in lines if int(n)}
    assert bigwig_values(tmp_path / "counts.bw") == depth
