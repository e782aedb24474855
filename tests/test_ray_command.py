"""`run --ray` as a command that starts a Ray of its own, and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from commands import SMALL_CHUNKS, command_after, finished
from read_files import random_fastq
from same_rows import differences

from wyr_batch.cli import main
from wyr_batch.rows.folder import parts_folder

# Chunks of 128 reads in the process that reads, too, and each of them a unit.
CHUNKS_ARE_UNITS = """
from wyr_batch.cluster import run, units
units.UNIT_READS = 1
def read(_, reading):
    from wyr_batch.reads import stream
    stream.open_reads = partial(stream.open_reads, chunk_reads=128)
    yield from units.read_units(reading)
run._read = read
"""


def test_a_command_starts_a_ray_of_its_own_and_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    source, output, whole = tmp_path / "reads.fastq", tmp_path / "masks.parquet", tmp_path / "whole.parquet"
    source.write_text(random_fastq(1_000, most_bp=150))
    run = ["run", str(source), "-t", "1", "--runtime", "onnx", "-o"]
    words = [*command_after(*SMALL_CHUNKS, CHUNKS_ARE_UNITS), *run, str(output)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen([*words, "--ray", "local"], stderr=subprocess.PIPE, text=True, env=environment)
    while not (parts_folder(output) / "part-000000.parquet").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "reads are finished and kept" in err
    assert "Traceback" not in err
    assert finished([*words, "-q", "--resume"]).returncode == 0
    assert main([*run, str(whole), "-q"]) == 0
    made, wanted = pq.read_table(output), pq.read_table(whole)
    assert made["read_id"].equals(wanted["read_id"])
    assert made["status"].equals(wanted["status"])
    some = pa.array(range(0, len(made), 5))  # numbers may differ in their last bits: batches came in another order
    for row, twin in zip(made.take(some).to_pylist(), wanted.take(some).to_pylist(), strict=True):
        assert not differences(row, twin, 1e-5)
