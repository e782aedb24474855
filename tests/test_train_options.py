"""Every option of train, evaluate and export that cannot be meant is a clear error, before anything is written."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_models import RANKS, save_toy_checkpoints, toy_explainer
from wyr_batch.train.config import EvaluationConfig, ExplainerTraining, ExplanandumConfig, LoopConfig
from wyr_batch.train.data.batches import StepBatches
from wyr_batch.train.data.labelled import choose_ranks, load_reads, read_table
from wyr_batch.train.data.prepare import SplitRule
from wyr_batch.train.places import check_training_folder

from wyr_batch.cli import cli, main
from wyr_batch.cli.params import complete_options
from wyr_batch.cli.train.settings import Settings
from wyr_batch.errors import OutputError, UsageError
from wyr_batch.models.checkpoints import save_explainer

ROOT = Path(__file__).parents[1]
N_ROWS = 60


def rows() -> list[list[str]]:
    """Sequences with the toy models' labels."""
    bases = "ACGTTGCAAC" * 16
    return [[bases[i % 7 :], *(rank.labels[i % len(rank.labels)] for rank in RANKS)] for i in range(N_ROWS)]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv(path: Path, head: str, lines: list[list[str]]) -> Path:
    return written(path, "".join(f"{','.join(line)}\n" for line in [head.split(","), *lines]))


def contents(folder: Path) -> dict[str, str]:
    """Return what every file under a folder holds, by its name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, what prepare makes of it, checkpoints with its classes, and inputs that no command can use."""
    folder = tmp_path_factory.mktemp("inputs")
    head = "sequence,superkingdom,phylum,genus"
    csv(folder / "lab.csv", head, rows())
    assert main(["train", "prepare", str(folder / "lab.csv"), "-o", str(folder / "lab.parquet")]) == 0
    csv(folder / "twice.csv", "sequence,superkingdom,phylum,genus,genus", [[*row, "x"] for row in rows()])
    csv(folder / "ragged.csv", head, [*rows(), ["ACGT", "a"]])
    csv(folder / "notes.csv", head, [[f"note {i}!", *row[1:]] for i, row in enumerate(rows())])
    csv(folder / "parts.csv", f"{head},part", [[*row, "training"] for row in rows()])
    csv(folder / "length.csv", "sequence,length", [row[:2] for row in rows()])
    csv(folder / "taxids.csv", "sequence,taxid", [[row[0], "13"] for row in rows()])
    written(folder / "latin.csv", f"{head}\nACGT,a,b,caf\xe9\n".encode("latin-1"))
    written(folder / "reads.fasta", ">a\nACGT\n")
    written(folder / "empty_reads.fastq", "@r\n\n+\n\n")
    written(folder / "ids.tsv", "a\t13\n")
    written(folder / "ids.tsv.gz", b"\x1f\x8b\x08\x00\xff\xfe")
    written(folder / "list.json", "[]")
    (folder / "dump").mkdir()
    (folder / "notes").mkdir()
    written(folder / "notes" / "mine.txt", "precious")
    os.mkfifo(folder / "pipe")
    explanandum, _ = save_toy_checkpoints(folder)
    save_explainer(toy_explainer(num_classes=12), folder / "explainer_of_12", {})
    shutil.copytree(explanandum, folder / "bundle" / "checkpoint" / "explanandum")
    written(folder / "bundle" / "bundle.json", "{}")
    tables(folder)
    return folder


def tables(folder: Path) -> None:
    """Write training Parquets with one thing wrong each."""
    table = pq.read_table(folder / "lab.parquet")
    text = pa.array(["ACGT"] * N_ROWS)

    def changed(name: str, column: str, values: pa.Array) -> None:
        pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), folder / name)

    pq.write_table(
        pa.table({"read_id": ["r1"], "taxon": ["x"], "mask": [[0.5]], "values": [[1]]}), folder / "masks.parquet"
    )
    pq.write_table(table.drop_columns("split"), folder / "no_split.parquet")
    pq.write_table(table.drop_columns("genus"), folder / "no_genus.parquet")
    pq.write_table(table.select(["header", "sequence", "split"]), folder / "no_rank.parquet")
    pq.write_table(table.slice(0, 0), folder / "no_row.parquet")
    pq.write_table(table.append_column("length", text), folder / "length.parquet")
    changed("splits.parquet", "split", pa.array(["train"] * (N_ROWS - 1) + ["dev"]))
    changed("all_train.parquet", "split", pa.array(["train"] * N_ROWS))
    changed("numbers.parquet", "genus", pa.array(range(N_ROWS)))
    changed("null.parquet", "sequence", pa.array(["ACGT", None] * (N_ROWS // 2)))
    changed("accents.parquet", "sequence", pa.array(["ACGT"] * 3 + ["ÀCGT"] * (N_ROWS - 3)))
    changed("unknown.parquet", "genus", pa.array([f"genus {i % 4}" for i in range(N_ROWS)]))
    changed("no_phylum.parquet", "phylum", pa.array([None] * N_ROWS, pa.string()))


PREPARE = "train prepare {in}/lab.csv -o new.parquet"
EXPLANANDUM = "train explanandum {in}/lab.parquet -o new --min-sequences 1 --steps 2 --evaluate-every 1"
EXPLAINER = "train explainer {in}/lab.parquet --explanandum {in}/explanandum -o new --steps 2 --evaluate-every 1"
EVALUATE = "evaluate {in}/lab.parquet --explanandum {in}/explanandum --explainer {in}/explainer --split train"
EXPORT = "export --explanandum {in}/explanandum --explainer {in}/explainer -o new"

PREPARE_CASES = [
    ("--test-share 2", "--test-share: got 2.0, expected 0 to 1"),
    ("--test-share -1", "--test-share: got -1.0, expected 0 to 1"),
    ("--test-share nan", "--test-share: got nan, expected 0 to 1"),
    ("--validation-share nan", "--validation-share: got nan"),
    ("--test-share 0.5 --validation-share 0.5", "expected a sum below 1"),
    ("--seed -1", "--seed: got -1, expected 0 or more"),
    ("--split hash --seed 1", "--seed: got it with --split hash"),
    ("--ranks genus,genus", "whose column 'genus' would be one of the rank 'genus'"),
    ("--ranks superkingdom,,genus", "--ranks: got a rank called ''"),
    ("--ranks genus,GENUS_prob", "--ranks: got the rank 'GENUS_prob'"),
    ("--ranks split", "--ranks: got 'split', a column that every training Parquet has"),
    ("--ranks sequence", "--ranks: got the rank 'sequence'"),
    ("--ranks genus --sequence-column genus", "--sequence-column: got 'genus', which --ranks names too"),
    ("--ranks genus --split genus", "--split: got 'genus', which --ranks names too"),
    ("--ranks family", "expected 'family' too"),
    ("--sequence-column=", "--sequence-column: got the name ''"),
    ("--split=", "--split: got the name ''"),
    ("--taxid-column taxid", "--taxid-column: got no --taxdump"),
    ("--taxid-column genus", "--taxid-column: got 'genus', which --ranks names too"),
    ("--taxids {in}/ids.tsv", "--taxids: got no FASTA among SOURCES"),
    ("--taxdump {in}/none.tar.gz", "none.tar.gz: got"),
    ("{in}/lab.csv", "lab.csv more than once"),
    ("{in}/none.csv", "none.csv: got no such file"),
    ("{in}/notes", "got no *_fragments.json in this directory"),
    ("{in}/reads.fasta", "reads.fasta: got taxids and no taxonomy, expected --taxdump"),
    ("{in}/reads.fasta --taxdump {in}/dump --taxids {in}/ids.tsv.gz", "got bytes that are not UTF-8"),
    ("{in}/reads.fasta --taxdump {in}/dump --taxids {in}/none.tsv", "none.tsv: got 'No such file"),
    ("{in}/reads.fasta --taxdump {in}/dump --split part", "reads.fasta: got a kind of file that has no columns"),
    ("-o {in}/lab.csv", "got the source"),
    ("-o {in}/notes/../lab.csv", "got the source"),
    ("{in}/reads.fasta --taxdump {in}/dump --taxids {in}/ids.tsv -o {in}/ids.tsv", "got --taxids"),
    ("--taxdump {in}/dump -o {in}/dump/x.parquet", "got a path in --taxdump"),
    ("-o {in}/masks.parquet", "masks.parquet: got a file that train prepare did not write"),
    ("-o {in}/ids.tsv", "ids.tsv: got a file that train prepare did not write"),
    ("-o {in}/pipe", "pipe: got a pipe"),
    ("-o /dev/null", "/dev/null: got a device"),
    ("-o {in}/notes", "notes: got a folder"),
    ("-o -", "-o: got -"),
    ("--output=", "-o: got an empty name"),
]
SOURCE_CASES = [
    ("{in}/twice.csv", "got the column 'genus' more than once"),
    ("{in}/ragged.csv", "Expected 4 columns, got 2"),
    ("{in}/latin.csv", "latin.csv: got"),
    ("{in}/notes.csv", "got no sequence to write, expected at least one. Dropped: {'characters of no sequence': 60}"),
    ("{in}/parts.csv --split part", "parts.csv, column 'part': got 'training', expected train, validation, test"),
    ("{in}/length.csv --ranks length", "--ranks: got the rank 'length'"),
    ("{in}/taxids.csv --sequence-column taxid --ranks sequence", "--ranks: got the rank 'sequence'"),
    ("{in}/masks.parquet --sequence-column mask --ranks taxon", "column 'mask': got list<"),
    ("{in}/masks.parquet --sequence-column read_id --ranks values", "column 'values': got list<"),
    ("{in}/masks.parquet --sequence-column read_id --ranks mask", "--ranks: got the rank 'mask'"),
    ("--test-share 0.1", "--test-share: got it for the marker set"),
    ("--ranks genus", "--ranks: got it for the marker set"),
    ("--taxids {in}/ids.tsv", "--taxids: got it for the marker set"),
]
LOOP_CASES = [
    ("--steps 0", "--steps: got 0, expected 1 or more"),
    ("--evaluate-every 0", "--evaluate-every: got 0, expected 1 or more"),
    ("--learning-rate 0", "--learning-rate: got 0.0, expected a finite number above 0"),
    ("--learning-rate nan", "--learning-rate: got nan, expected a finite number above 0"),
    ("--learning-rate inf", "--learning-rate: got inf, expected a finite number above 0"),
    ("--batch-reads 0", "--batch-reads: got 0, expected 1 or more"),
    ("--window 5", "--window: got 5, expected 6 or more"),
    ("--null-share nan", "--null-share: got nan, expected 0 to 1"),
    ("--validation-reads 0", "--validation-reads: got 0, expected 1 or more"),
    ("--threads -1", "--threads: got -1, expected 0"),
    ("--seed -1", "--seed: got -1, expected 0 or more"),
    ("-o {in}/lab.parquet", "lab.parquet: got"),
    ("-o {in}", "got a folder that holds DATA"),
    ("-o {in}/notes", "notes: got a folder that no training of an"),
    ("-o {in}/dump/../notes", "notes: got a folder that no training of an"),
    ("-o {in}/bundle/checkpoint/explanandum", "got a folder in the bundle"),
    ("-o -", "-o: got -"),
    ("--output=", "-o: got an empty name"),
    ("-o {in}/pipe", "pipe: got a pipe"),
    ("-o /dev/null", "/dev/null: got a device"),
]
EXPLANANDUM_CASES = [
    ("--min-sequences 0", "--min-sequences: got 0, expected 1 or more"),
    ("--min-sequences 99", "--min-sequences: got 99, expected at most 12, what the largest genus of"),
    ("--heads 3", "--heads: got 3 for --hidden-size 128"),
    ("--heads 128", "--heads: got 128 for --hidden-size 128"),
    ("--heads 0", "--heads: got 0, expected 1 or more"),
    ("--hidden-size 7", "--hidden-size: got 7, expected an even number"),
    ("--hidden-size 0", "--hidden-size: got 0, expected 2 or more"),
    ("--layers 0", "--layers: got 0, expected 1 or more"),
    ("--intermediate-size -4", "--intermediate-size: got -4, expected 1 or more"),
    ("--start-from {in}/explanandum --layers 4", "--layers: got --start-from as well"),
    ("--start-from=", "--start-from: got an empty name"),
    ("--pooling max", "Invalid value for '--pooling'"),
    ("-o {in}/explanandum --start-from {in}/explanandum", "got --start-from"),
    ("-o {in}/explanandum/model --start-from {in}/explanandum", "got a path in --start-from"),
    ("-o {in}/explainer", "explainer: got a folder that no training of an explanandum made"),
]
EXPLAINER_CASES = [
    ("--lambda-area nan", "--lambda-area: got nan"),
    ("--randomise -1", "--randomise: got -1, expected 0 or more"),
    ("--start-from {in}/explainer_of_12", "explainer_of_12: got num_classes 12, expected 10"),
    ("--start-from {in}/none", "none/config.json"),
    ("--start-from {in}/explainer -o {in}/explainer", "got --start-from"),
    ("-o {in}/explanandum", "got --explanandum"),
    ("-o {in}/explanandum/model", "got a path in --explanandum"),
]
# Content of the --config file, further options, and words of the message after the file's name.
FILE_CASES = [
    ("step = 5", "", ": got the unknown setting 'step', expected one of steps, evaluate_every, "),
    ("learning-rate = 1", "", "Did you mean learning_rate?"),
    ("window = 60", "", "Did you mean window_bp?"),
    ("output = 'x'", "", ": got the unknown setting 'output'"),
    ("[training]\nsteps = 5", "", ": got the table [training], expected settings outside of tables"),
    ("loop.steps = 5", "", ": got the table [loop]"),
    ("[steps]\na = 1", "", ', steps: got {"a": 1}, expected a whole number'),
    ("seed = 'many'", "", ', seed: got "many", expected a whole number'),
    ("seed = true", "", ", seed: got true, expected a whole number"),
    ("seed = 1.5", "", ", seed: got 1.5, expected a whole number"),
    ("learning_rate = '1e-3'", "", ', learning_rate: got "1e-3", expected a number'),
    ("learning_rate = true", "", ", learning_rate: got true, expected a number"),
    ("learning_rate = nan", "", ", learning_rate: got NaN, expected a number"),
    ("learning_rate = 1979-05-27", "", ', learning_rate: got "1979-05-27", expected a number'),
    ("bf16 = 1", "", ", bf16: got 1, expected true or false"),
    ("learning_rate = 0", "", ", learning_rate: got 0.0, expected a finite number above 0"),
    ("batch_reads = 0", "", ", batch_reads: got 0, expected 1 or more"),
    ("window_bp = 5", "", ", window_bp: got 5, expected 6 or more"),
    ("null_share = 2", "", ", null_share: got 2.0, expected 0 to 1"),
    ("seed = -1", "", ", seed: got -1, expected 0 or more"),
    ("threads = 4097", "", ", threads: got 4097, expected 0 to 4096"),
    ("patience = 0", "", ", patience: got 0, expected 1 or more"),
    ("log_every = 0", "", ", log_every: got 0, expected 1 or more"),
    ("gradient_accumulation = 0", "", ", gradient_accumulation: got 0, expected 1 or more"),
    ("warmup_steps = 3", "", ", warmup_steps: got 3, expected 0 to 2, the number of steps"),
    ("warmup_steps = -1", "", ", warmup_steps: got -1, expected 0 to 2"),
    ("weight_decay = -1", "", ", weight_decay: got -1.0, expected a finite number, 0 or more"),
    ("full_share = 1.5", "", ", full_share: got 1.5, expected 0 to 1"),
    ("null_leaf_weight = -1", "", ", null_leaf_weight: got -1.0"),
    ("batch_reads = 0", "--seed -1", "--seed: got -1"),
    ("steps = ", "", ": got 'Invalid value (at end of document)', expected TOML"),
    ("seed = 1\nseed = 2", "", "expected TOML"),
    ("a = " + "[" * 9000, "", "expected TOML"),
]
EXPLANANDUM_FILE_CASES = [
    ("heads = 4", "", "Did you mean num_attention_heads?"),
    ("lambda_area = 1", "", ": got the unknown setting 'lambda_area'"),
    ("min_sequences = 0", "--min-sequences 0", "--min-sequences: got 0, expected 1 or more"),
    ("num_attention_heads = 3", "", ", num_attention_heads: got 3 for --hidden-size 128"),
    ("num_hidden_layers = 0", "", ", num_hidden_layers: got 0, expected 1 or more"),
    ("pooling = 'max'", "", ", pooling: got 'max', expected one of mean, cls"),
    ("balance = ['none']", "", ', balance: got ["none"], expected text'),
    ("frame_loss = -1", "", ", frame_loss: got -1.0"),
    ("dropout = 1", "", ", dropout: got 1.0, expected 0 or more and less than 1"),
    ("hide_share = 2", "", ", hide_share: got 2.0, expected 0 to 1"),
    ("hidden_size = 8", "--start-from {in}/explanandum", ", hidden_size: got --start-from as well"),
]
EXPLAINER_FILE_CASES = [
    ("min_sequences = 5", "", ": got the unknown setting 'min_sequences'"),
    ("lambda_entropy = -1", "", ", lambda_entropy: got -1.0"),
    ("lambda_area = -1", "", ", lambda_area: got -1.0"),
    ("lambda_variation = inf", "", ", lambda_variation: got Infinity, expected a number"),
    ("lambda_other = -0.1", "", ", lambda_other: got -0.1"),
    ("area_least = 0.5", "", ", area_least: got 0.5, expected 0 to 0.3"),
    ("area_most = 1.5", "", ", area_most: got 1.5, expected 0 to 1"),
    ("sharpness = 0", "", ", sharpness: got 0.0, expected a finite number above 0"),
    ("complement_sharpness = -1", "", ", complement_sharpness: got -1.0"),
    ("complement = 'all'", "", ", complement: got 'all', expected one of entropy, call"),
    ("entropy_scale = 'ln'", "", ", entropy_scale: got 'ln', expected one of classes, log"),
    ("targets = 'all'", "", ", targets: got 'all', expected one of predicted, labels"),
    ("rank_weights = '1,1,2'", "", ', rank_weights: got "1,1,2", expected a list of numbers'),
    ("rank_weights = [1, 'x']", "", ', rank_weights[1]: got "x", expected a number'),
    ("rank_weights = [1, true, 1]", "", ", rank_weights[1]: got true, expected a number"),
    ("rank_weights = [-1, 1, 1]", "", ", rank_weights: got -1.0"),
    ("rank_weights = [0, 0, 0]", "", ", rank_weights: got 0 for every rank"),
    ("rank_weights = [1, 1]", "", "rank_weights: got 2 weights, expected 3"),
    ("warm_start_steps = -1", "", ", warm_start_steps: got -1, expected 0 or more"),
    ("warm_start_steps = 1\nwarm_start_share = 2", "", ", warm_start_share: got 2.0, expected 0 to 1"),
    ("warm_start_steps = 1\nwarm_start_share = 0", "", ", warm_start_share: got 0.0"),
    ("warm_start_share = 0.5", "", ", warm_start_share: got no warm_start_steps"),
    ("warm_start_steps = 1", "--start-from {in}/explainer", "--start-from: got warm_start_steps as well"),
    ("complement = 'call'\nentropy_scale = 'log'", "", ', entropy_scale: got complement = "call" as well'),
]
EVALUATE_CASES = [
    ("--max-reads 0", "--max-reads: got 0, expected 1 or more"),
    ("--max-reads -1", "--max-reads: got -1, expected 1 or more"),
    ("--faithfulness-reads -1", "--faithfulness-reads: got -1, expected 0 or more"),
    ("--window 0", "--window: got 0, expected 6 or more"),
    ("--null-share nan", "--null-share: got nan, expected 0 to 1"),
    ("--seed -1", "--seed: got -1, expected 0 or more"),
    ("--explainer {in}/explainer_of_12", "--explainer {in}/explainer_of_12: got num_classes 12, expected 10"),
    ("--randomised-explainer {in}/explainer_of_12", "--randomised-explainer {in}/explainer_of_12: got num_classes 12"),
    (
        "--randomised-explainer {in}/explainer --faithfulness-reads 0",
        "--randomised-explainer: got --faithfulness-reads 0",
    ),
    ("-o {in}/lab.csv", "lab.csv: got a file"),
    ("-o {in}/explanandum", "got a path in --explanandum"),
    ("-o {in}/explainer/x", "got a path in --explainer"),
    ("-o {in}/pipe", "pipe: got a pipe"),
    ("-o -", "-o: got -"),
    ("--output=", "-o: got an empty name"),
]
EXPORT_CASES = [
    ("--max-tokens 1", "--max-tokens: got 1, expected 2 or more"),
    ("--max-tokens 513", "--max-tokens: got 513, expected at most 512"),
    ("--max-tokens 200", "--window: got 1500 bp (251 tokens, <cls> counted), expected 6 to 1194 bp"),
    ("--window 3", "--window: got 3, expected 6 or more"),
    ("--threads -1", "--threads: got -1, expected 0"),
    ("--name=", "--name: got ''"),
    ("--name a/b", "--name: got 'a/b'"),
    ("--name ..", "--name: got '..'"),
    ("--verify {in}/empty_reads.fastq", "empty_reads.fastq: got no read with a base"),
    ("--verify {in}/none.fastq", "none.fastq"),
    ("--metrics {in}/none.json", "none.json"),
    ("--metrics {in}/list.json", "list.json"),
    ("-o {in}/explanandum --overwrite", "got --explanandum"),
    ("-o {in}/explainer/x", "got a path in --explainer"),
    ("--verify {in}/notes/mine.txt -o {in}/notes --overwrite", "got a folder that holds --verify"),
    ("-o {in}/notes", "notes: got an existing output"),
    ("-o {in}/notes --overwrite", "notes: got something that is no bundle"),
    ("-o {in}/lab.csv --overwrite", "lab.csv: got a file"),
    ("-o /dev/null --overwrite", "/dev/null: got a device"),
    ("-o -", "-o: got -"),
    ("--output=", "-o: got an empty name"),
]
TABLES = [
    ("none.parquet", "none.parquet: got 'no such file', expected a training Parquet"),
    ("notes", "notes: got a folder, expected a training Parquet"),
    ("lab.csv", "lab.csv: got"),
    ("masks.parquet", "masks.parquet: got no column 'header', expected a training Parquet"),
    ("no_split.parquet", "got no column 'split'"),
    ("no_rank.parquet", "got no column of labels"),
    ("no_row.parquet", "got no row"),
    ("length.parquet", "got the rank 'length'"),
    ("splits.parquet", "column 'split', row 60: got 'dev', expected one of train, validation, test"),
    ("numbers.parquet", "column 'genus': got int64, expected text"),
    ("null.parquet", "column 'sequence', row 2: got None, expected letters"),
    ("accents.parquet", "column 'sequence', row 4: got 'ÀCGT', expected letters"),
]
TRAINING_TABLES = [
    ("explanandum", "all_train.parquet", "split 'validation': got no sequence of the chosen classes"),
    ("explanandum", "no_phylum.parquet", "column 'phylum': got no label"),
    ("explainer", "unknown.parquet", "split 'train': got no sequence of the chosen classes"),
    ("explainer", "no_genus.parquet", "got the ranks superkingdom, phylum, expected 'genus' too"),
]


def all_cases() -> list[tuple[str, str]]:
    """Return the words of each command and those of its message."""
    cases = [(f"{PREPARE} {option}", words) for option, words in PREPARE_CASES]
    cases += [(f"train prepare {option} -o new.parquet", words) for option, words in SOURCE_CASES]
    for command, own in ((EXPLANANDUM, EXPLANANDUM_CASES), (EXPLAINER, EXPLAINER_CASES)):
        cases += [(f"{command} {option}", words) for option, words in (*LOOP_CASES, *own)]
    cases += [(f"{EVALUATE} {option}", words) for option, words in EVALUATE_CASES]
    cases += [(f"{EXPORT} {option}", words) for option, words in EXPORT_CASES]
    for name, words in TABLES:
        cases += [(command.replace("lab.parquet", name), words) for command in (EXPLANANDUM, EXPLAINER, EVALUATE)]
    by_name = {"explanandum": EXPLANANDUM, "explainer": EXPLAINER}
    return cases + [(by_name[kind].replace("lab.parquet", name), words) for kind, name, words in TRAINING_TABLES]


def file_cases() -> list[tuple[str, str, str]]:
    """Return the content of each --config file, the words of the command, and those of its message."""
    both = [(EXPLANANDUM, EXPLANANDUM_FILE_CASES), (EXPLAINER, EXPLAINER_FILE_CASES)]
    return [
        (content, f"{command} {options}", words)
        for command, own in both
        for content, options, words in (*FILE_CASES, *own)
    ]


@pytest.fixture
def refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Run a command that must be refused without a trace; returns its message."""

    def run(command: str) -> str:
        folder = tmp_path / "empty"
        folder.mkdir()
        monkeypatch.chdir(folder)
        before = contents(inputs)
        code = main([word.replace("{in}", str(inputs)) for word in command.split()])
        message = capsys.readouterr().err
        assert code in (1, 2)
        assert "unexpected" not in message
        assert "Traceback" not in message
        assert contents(inputs) == before
        assert not list(folder.iterdir()), "nothing was written"
        return message

    return run


@pytest.mark.parametrize(("command", "words"), [pytest.param(*case, id=case[0]) for case in all_cases()])
def test_refused_with_a_clear_message(command: str, words: str, inputs: Path, refused: Callable[[str], str]) -> None:
    assert words.replace("{in}", str(inputs)) in refused(command)


@pytest.mark.parametrize(
    ("content", "command", "words"), [pytest.param(*case, id=f"{case[1]} {case[0][:60]}") for case in file_cases()]
)
def test_config_files_are_checked_as_options_are(
    content: str, command: str, words: str, tmp_path: Path, refused: Callable[[str], str]
) -> None:
    file = written(tmp_path / "settings.toml", content)
    message = refused(f"{command} --config {file}")
    assert words in message
    assert not words.startswith((":", ",")) or f"{file}{words}" in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.toml", "none.toml: got 'No such file or directory', expected a readable text file"),
        ("dump", "dump: got 'Is a directory', expected a readable text file"),
        ("latin.csv", "latin.csv: got 'bytes that are not UTF-8 at place"),
        ("lab.parquet", "lab.parquet: got"),
        ("lab.csv", "expected TOML. Write one setting per line, as in: steps = 1000"),
    ],
)
def test_config_files_that_cannot_be_read(name: str, words: str, inputs: Path, refused: Callable[[str], str]) -> None:
    assert words in refused(f"{EXPLAINER} --config {{in}}/{name}")


def test_config_needs_a_name(refused: Callable[[str], str]) -> None:
    assert "--config: got an empty name" in refused(f"{EXPLAINER} --config=")


def settings_of(name: str, options: list[str], file: Path | None) -> dict[str, Any]:
    """Return the settings that a training would have, of all its dataclasses."""
    module = importlib.import_module(f"wyr_batch.cli.train.{name}")
    needed = {"explanandum": [], "explainer": ["--explanandum", "x"]}[name]
    complete_options(module.command, f"WYR_TRAIN_{name.upper()}")
    with module.command.make_context(name, ["data", "-o", "new", *needed, *options]) as context:
        settings = Settings(context.params, file)
        return {field: value for kind in module.KINDS for field, value in asdict(settings.make(kind)).items()}


@pytest.mark.parametrize("name", ["explanandum", "explainer"])
def test_option_before_environment_before_file_before_default(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(
        tmp_path / "c.toml", "steps = 11\nevaluate_every = 12\nbatch_reads = 13\nbf16 = true\nwindow_bp = 60\n"
    )
    monkeypatch.setenv(f"WYR_TRAIN_{name.upper()}_STEPS", "21")
    monkeypatch.setenv(f"WYR_TRAIN_{name.upper()}_EVALUATE_EVERY", "22")
    found = settings_of(name, ["--steps", "31", "--no-bf16"], file)
    kept = ("steps", "evaluate_every", "batch_reads", "window_bp", "bf16", "compile", "learning_rate")
    assert [found[name] for name in kept] == [31, 22, 13, 60, False, False, 2e-4]
    monkeypatch.undo()
    assert settings_of(name, [], file)["bf16"] is True
    # What equals the default is an option that was given all the same.
    default = settings_of(name, [], None)["steps"]
    assert settings_of(name, ["--steps", str(default)], file)["steps"] == default


def test_numbers_of_a_file_have_their_settings_types(tmp_path: Path) -> None:
    file = written(
        tmp_path / "c.toml", "lambda_area = 3\nrank_weights = [1, 1.5, 2]\nlearning_rate = 1\nthreads = 0x2\n"
    )
    found = settings_of("explainer", [], file)
    values = [found[name] for name in ("lambda_area", "rank_weights", "learning_rate", "threads")]
    assert values == [3.0, (1.0, 1.5, 2.0), 1.0, 2]
    assert [type(value) for value in values] == [float, tuple, float, int]


@pytest.mark.parametrize("name", ["explanandum", "explainer"])
def test_recipes_and_documents_hold_settings(name: str, tmp_path: Path) -> None:
    recipe = ROOT / "train" / "recipes" / f"starter-{name}.toml"
    first = recipe.read_text().splitlines()[0]
    assert first.startswith("# Two CPU cores, "), "what comes out, on which machine, in what time"
    of_recipe = json.loads(json.dumps(settings_of(name, [], recipe)))  # tuples are lists there
    shipped = json.loads((ROOT / "wyr_batch" / "starter" / "checkpoint" / name / "wyr.json").read_text())["training"]
    assert {field: shipped[field] for field in of_recipe if field in shipped} == {
        field: 2 if field == "threads" else value for field, value in of_recipe.items() if field in shipped
    }
    page = (ROOT / "docs" / "training.md").read_text()
    command = importlib.import_module(f"wyr_batch.cli.train.{name}").command
    assert [field for field in command.settings().keys() - command.flags() if f"`{field}`" not in page] == []
    for block in re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL):
        assert settings_of("explainer", [], written(tmp_path / "block.toml", block))["warm_start_steps"] == 1500


def options_of(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Yield every option of a command and of those below it: its name, and its help without the default at its end."""
    for param in command.params:
        if isinstance(param, click.Option):
            yield f"{path} {param.opts[-1]}", re.sub(r" \[default: [^]]+\]$", "", param.help or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from options_of(below, f"{path} {name}")


def test_every_option_has_a_sentence_of_help() -> None:
    found = dict(options_of(cli, "wyr-batch"))
    assert len(found) > 90
    assert {name: text for name, text in found.items() if not re.fullmatch(r"[A-Z].{8,}\.", text)} == {}


TINY = "--hidden-size 8 --layers 1 --heads 2 --intermediate-size 8 --threads 1 --batch-reads 2 --window 60"


@pytest.mark.filterwarnings("ignore")  # of transformers' own making
def test_training_goes_on_or_starts_over_in_its_own_folder_only(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "tr", written(tmp_path / "c.toml", "hide_share = 0.25\nvalidation_reads = 7\nsteps = 1\n")
    words = (
        f"{EXPLANANDUM} {TINY} --config {file}".replace("{in}", str(inputs)).replace("-o new", f"-o {folder}").split()
    )
    assert main(words) == 0
    recorded = json.loads((folder / "wyr.json").read_text())["training"]
    asked = {"hide_share": 0.25, "validation_reads": 7, "steps": 2, "min_sequences": 1, "window_bp": 60, "dropout": 0.1}
    assert asked.items() <= recorded.items(), "of the file, of the options, and defaults"
    written(folder / "notes.txt", "precious")
    assert main([*words, "--resume", "--hidden-size", "16"]) == 1
    assert "word_embeddings.weight: got shape (4107, 8), expected (4107, 16)" in capsys.readouterr().err
    assert main([*words, "--resume", "--steps", "1"]) == 1
    assert "checkpoint-2: got 2 steps done, expected at most 1" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    first = contents(folder)
    assert main([*words, "--seed", "1"]) == 0
    again = contents(folder)
    for name in ("checkpoints", "log.jsonl"):
        old = {path.replace(name, f"{name}.1", 1): held for path, held in first.items() if path.startswith(name)}
        assert old.items() <= again.items(), "what the first training left has another name"
    assert first["notes.txt"] == again["notes.txt"]
    assert first["model/model.safetensors"] != again["model/model.safetensors"]


@pytest.mark.parametrize(
    ("names", "is_ours"),
    [
        ({"wyr.json": '{"begun": "explainer"}'}, True),
        ({"wyr.json": "{}", "config.json": "{}", "model.safetensors": ""}, True),
        ({"log.jsonl": ""}, True),
        ({"wyr.json": '{"begun": "explanandum"}', "log.jsonl": ""}, False),
        ({"wyr.json": "{}", "model.safetensors": ""}, False),
        ({"wyr.json": "[]", "config.json": "{}", "model.safetensors": ""}, False),
        ({"log.jsonl": "", "config.json": "{}"}, False),
        ({"config.json": "{}", "model.safetensors": ""}, False),
    ],
)
def test_folders_that_an_explainer_may_be_trained_in(names: dict[str, str], is_ours: bool, tmp_path: Path) -> None:
    for name, content in names.items():
        written(tmp_path / name, content)
    if is_ours:
        check_training_folder(tmp_path, "explainer", [])
    else:
        with pytest.raises(OutputError, match="got a folder that no training of an explainer made"):
            check_training_folder(tmp_path, "explainer", [])


def test_pieces_are_never_longer_than_the_window(inputs: Path) -> None:
    table = read_table(inputs / "lab.parquet")
    reads = load_reads(table, choose_ranks(table, [rank.name for rank in RANKS], 1), "train")
    batches = StepBatches(reads, 1, batch_reads=16, window_bp=12, full_share=0.0)
    assert batches[0].input_ids.shape[1] <= 1 + 12


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LoopConfig(steps=1, evaluate_every=1, learning_rate=math.nan), "--learning-rate: got nan"),
        (lambda: LoopConfig(steps=10**12, evaluate_every=1), r"--steps: got 1000000000000, expected 1 to 1e\+09"),
        (lambda: ExplanandumConfig(balance="all"), "--balance: got 'all', expected one of sampling, weights, none"),
        (lambda: ExplainerTraining(area_least=0.4), "area_least: got 0.4, expected 0 to 0.3"),
        (lambda: EvaluationConfig(max_reads=0), "--max-reads: got 0, expected 1 or more"),
        (lambda: SplitRule("random"), "--split: got 'random', expected one of hash, stratified, column"),
    ],
)
def test_python_is_checked_as_the_command_is(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
