"""Runs over what users' files hold: empty reads by the million, reads of megabases, missing references, bad blocks."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pysam
import pytest
from commands import WYR_BATCH, finished
from toy_engine import run_toy

from wyr_batch.errors import InputError
from wyr_batch.job.config import RunConfig
from wyr_batch.rows.folder import parts_folder


def bases_of(n: int, seed: int = 1) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=n))


def test_a_million_empty_reads_are_a_million_rows(tmp_path: Path) -> None:
    source, output = tmp_path / "empty.fastq", tmp_path / "masks.parquet"
    source.write_text("@r\n\n+\n\n" * 1_000_000)
    stats = run_toy(RunConfig((str(source),), output))
    assert stats.counts.statuses == {"empty": 1_000_000}
    table = pq.read_table(output, columns=["status", "mask", "kingdom"])
    assert table.num_rows == table["mask"].null_count == table["kingdom"].null_count == 1_000_000


def test_a_read_of_five_megabases_is_one_row(tmp_path: Path) -> None:
    source, output = tmp_path / "long.fa", tmp_path / "masks.parquet"
    source.write_text(f">short\nACGTACGT\n>long\n{bases_of(5_000_003)}\n>after\nACGTACGT\n")
    run_toy(RunConfig((str(source),), output))
    short, long, after = pq.read_table(output).to_pylist()
    assert short["mask"] == after["mask"]
    assert (long["status"], long["length"], long["n_tokens"]) == ("windowed", 5_000_003, 833_333 + 5)
    starts = np.array(long["token_start"])
    assert (starts[:833_334] == 6 * np.arange(833_334)).all()
    assert len(long["mask"]) == long["n_tokens"]


def test_what_headers_and_sequences_hold_reaches_the_rows(tmp_path: Path) -> None:
    source, output = tmp_path / "a name with spaces.fastq", tmp_path / "masks.parquet"
    reads = ["ACGTACACGTAC", "acgtacacgtac", "ACGTAC", "RYKMSWBDHVNU", "ACGTACACGUAC"]
    source.write_bytes("".join(f"@same id\r\n{read}\r\n+\r\n{'I' * len(read)}\r\n" for read in reads).encode())
    run_toy(RunConfig((str(source),), output))
    rows = pq.read_table(output).to_pylist()
    assert [row["read_id"] for row in rows] == ["same"] * 5
    assert rows[0]["mask"] == rows[1]["mask"] == rows[4]["mask"]
    # One unknown token for the ambiguity codes, then N and T.
    assert rows[3]["token_start"] == [0, 10, 11]


def aligned_cram(folder: Path, n_reads: int) -> Path:
    """Return a CRAM of reads aligned to a reference that is gone."""
    reference = folder / "reference.fa"
    genome = bases_of(20_000)
    reference.write_text(f">chr1\n{genome}\n")
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": "chr1", "LN": len(genome), "UR": str(reference)}]}
    path = folder / "reads.cram"
    with pysam.AlignmentFile(str(path), "wc", header=header, reference_filename=str(reference)) as out:
        for i in range(n_reads):
            record = pysam.AlignedSegment(out.header)
            record.query_name, record.flag, record.reference_id, record.reference_start = f"r{i}", 0, 0, i
            record.query_sequence, record.cigarstring, record.mapping_quality = genome[i : i + 60], "60M", 60
            record.query_qualities = pysam.qualitystring_to_array("I" * 60)
            out.write(record)
    for file in folder.glob("reference.fa*"):
        file.unlink()
    return path


def test_cram_without_its_reference_says_so(tmp_path: Path) -> None:
    """In processes of their own: htslib keeps references it has seen."""
    path, output, bam = aligned_cram(tmp_path, 50), tmp_path / "masks.parquet", tmp_path / "masked.bam"
    refs = tmp_path / "refs"
    refs.mkdir()
    genome = bases_of(20_000)
    (refs / hashlib.md5(genome.encode(), usedforsecurity=False).hexdigest()).write_text(genome)

    def said(ref_path: str, *words: str) -> str:
        settings = {"REF_PATH": str(tmp_path / ref_path), "REF_CACHE": str(tmp_path / "none" / "%s")}
        done = finished([*WYR_BATCH, *words, "-q"], env={**os.environ, **settings})
        assert "Traceback" not in done.stderr
        assert done.returncode == (0 if ref_path == "refs" else 1)
        return done.stderr

    run, convert = ("run", str(path), "-o", str(output)), ("convert", str(output), "--to", "bam", "-o", str(bam))
    advice = "its reference is missing: set REF_PATH to a folder of its sequences by their MD5"
    err = said("none", *run)
    assert f"{path}, record 1: got an unreadable record" in err
    assert advice in err
    assert "or convert the file to BAM (samtools view -b -T reference.fa)" in err
    assert not output.exists()
    assert said("refs", *run) == ""
    assert pq.read_metadata(output).num_rows == 50
    assert advice in said("none", *convert)
    assert not bam.exists()
    assert said("refs", *convert) == ""
    assert bam.exists()


def bgzf_fastq(path: Path, n_reads: int) -> list[int]:
    """Write reads as BGZF; returns where its blocks start."""
    with pysam.BGZFile(str(path), "wb") as file:
        for i in range(n_reads):
            read = bases_of(60, i)
            file.write(f"@r{i}\n{read}\n+\n{'I' * 60}\n".encode())
    data, at, starts = path.read_bytes(), 0, []
    while at < len(data):
        starts.append(at)
        at += int.from_bytes(data[at + 16 : at + 18], "little") + 1
    return starts


@pytest.mark.usefixtures("small_chunks")
def test_a_bad_block_of_bgzf_ends_the_run_and_resume_goes_on_once_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, output, whole = tmp_path / "reads.fastq.gz", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    starts = bgzf_fastq(source, 3000)
    good = source.read_bytes()
    run_toy(RunConfig((str(source),), whole))
    at = starts[len(starts) // 2] + 40
    source.write_bytes(good[:at] + bytes(b ^ 0x55 for b in good[at : at + 20]) + good[at + 20 :])
    with pytest.raises(InputError, match=f"{source}, record .*damaged gzip data"):
        run_toy(RunConfig((str(source),), output))
    assert "To go on after them, run the same command with --resume" in caplog.text
    kept = sum(pq.read_metadata(part).num_rows for part in parts_folder(output).glob("*.parquet"))
    assert 1000 < kept < 2500
    source.write_bytes(good)
    assert run_toy(RunConfig((str(source),), output, resume=True)).n_resumed == kept
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_a_writer_that_dies_in_the_pipe_is_an_error_and_its_reads_are_kept(tmp_path: Path) -> None:
    """Half a gzip stream through standard input, as from a download that broke off."""
    source, output = tmp_path / "reads.fastq.gz", tmp_path / "masks.parquet"
    bgzf_fastq(source, 1500)
    data = source.read_bytes()
    words = [*WYR_BATCH, "run", "-", "-q", "-n", "1200", "-o", str(output)]
    done = subprocess.run(words, input=data[: len(data) // 2], capture_output=True)
    assert done.returncode == 1
    assert b"<stdin>, record " in done.stderr
    assert b"end of the file inside gzip data" in done.stderr
    parts = [pq.read_table(part) for part in sorted(parts_folder(output).glob("*.parquet"))]
    kept = pa.concat_tables(parts)
    assert kept["read_id"].to_pylist() == [f"r{i}" for i in range(kept.num_rows)]
    assert kept.num_rows > 400
    done = subprocess.run([*words, "--resume"], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(output)
    assert table["read_id"].to_pylist() == [f"r{i}" for i in range(1200)]
    assert pc.all(pc.equal(table["length"], 60)).as_py()
