"""Every option of train, evaluate and export that cannot be meant is a clear error, before anything is written."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_models import RANKS, save_toy_checkpoints, toy_explainer
from wyr_batch.train.config import EvaluationConfig, ExplainerTraining, ExplanandumConfig, LoopConfig
from wyr_batch.train.data.batches import StepBatches
from wyr_batch.train.data.labelled import choose_ranks, load_reads, read_table
from wyr_batch.train.data.prepare import SplitRule
from wyr_batch.train.places import check_training_folder

from wyr_batch.cli import main
from wyr_batch.errors import OutputError, UsageError
from wyr_batch.models.checkpoints import save_explainer

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
    ("{in}/reads.fasta --taxdump {in}/dump --split part", "reads.fasta: got no split column in this kind of file"),
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
    ("--patience 0", "--patience: got 0, expected 1 or more"),
    ("--learning-rate 0", "--learning-rate: got 0.0, expected a finite number above 0"),
    ("--learning-rate nan", "--learning-rate: got nan, expected a finite number above 0"),
    ("--learning-rate inf", "--learning-rate: got inf, expected a finite number above 0"),
    ("--warmup-steps 3", "--warmup-steps: got 3, expected 0 to 2, the --steps"),
    ("--warmup-steps -1", "--warmup-steps: got -1, expected 0 to 2"),
    ("--weight-decay -1", "--weight-decay: got -1.0, expected a finite number, 0 or more"),
    ("--weight-decay nan", "--weight-decay: got nan"),
    ("--batch-reads 0", "--batch-reads: got 0, expected 1 or more"),
    ("--gradient-accumulation 0", "--gradient-accumulation: got 0, expected 1 or more"),
    ("--window 5", "--window: got 5, expected 6 or more"),
    ("--full-share 1.5", "--full-share: got 1.5, expected 0 to 1"),
    ("--null-leaf-weight -1", "--null-leaf-weight: got -1.0"),
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
    ("--frame-loss nan", "--frame-loss: got nan"),
    ("--dropout 1", "--dropout: got 1.0, expected 0 or more and less than 1"),
    ("--dropout nan", "--dropout: got nan"),
    ("--hide-share 2", "--hide-share: got 2.0, expected 0 to 1"),
    ("--start-from {in}/explanandum --layers 4", "--layers: got --start-from as well"),
    ("--start-from=", "--start-from: got an empty name"),
    ("-o {in}/explanandum --start-from {in}/explanandum", "got --start-from"),
    ("-o {in}/explanandum/model --start-from {in}/explanandum", "got a path in --start-from"),
    ("-o {in}/explainer", "explainer: got a folder that no training of an explanandum made"),
]
EXPLAINER_CASES = [
    ("--lambda-entropy -1", "--lambda-entropy: got -1.0"),
    ("--lambda-area nan", "--lambda-area: got nan"),
    ("--lambda-variation inf", "--lambda-variation: got inf"),
    ("--lambda-other -0.1", "--lambda-other: got -0.1"),
    ("--area-least 0.5", "--area-least: got 0.5, expected 0 to 0.3"),
    ("--area-most 1.5", "--area-most: got 1.5, expected 0 to 1"),
    ("--area-most nan", "--area-most: got nan"),
    ("--sharpness 0", "--sharpness: got 0.0, expected a finite number above 0"),
    ("--complement-sharpness -1", "--complement-sharpness: got -1.0"),
    ("--rank-weights 1,1", "--rank-weights: got 2 weights, expected 3"),
    ("--rank-weights 1,x,1", "--rank-weights: got 1,x,1"),
    ("--rank-weights=", "--rank-weights: got"),
    ("--rank-weights=-1,1,1", "--rank-weights: got -1.0"),
    ("--rank-weights 1,nan,1", "--rank-weights: got nan"),
    ("--rank-weights 0,0,0", "--rank-weights: got 0 for every rank"),
    ("--warm-start-steps -1", "--warm-start-steps: got -1, expected 0 or more"),
    ("--warm-start-steps 1 --warm-start-share 2", "--warm-start-share: got 2.0, expected 0 to 1"),
    ("--warm-start-steps 1 --warm-start-share 0", "--warm-start-share: got 0.0"),
    ("--warm-start-share 0.5", "--warm-start-share: got no --warm-start-steps"),
    ("--warm-start-steps 1 --start-from {in}/explainer", "--start-from: got --warm-start-steps as well"),
    ("--complement call --entropy-scale log", "--entropy-scale: got --complement call as well"),
    ("--randomise -1", "--randomise: got -1, expected 0 or more"),
    ("--start-from {in}/explainer_of_12", "explainer_of_12: got num_classes 12, expected 10"),
    ("--start-from {in}/none", "none/config.json"),
    ("--start-from {in}/explainer -o {in}/explainer", "got --start-from"),
    ("-o {in}/explanandum", "got --explanandum"),
    ("-o {in}/explanandum/model", "got a path in --explanandum"),
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


@pytest.mark.parametrize(("command", "words"), [pytest.param(*case, id=case[0]) for case in all_cases()])
def test_refused_with_a_clear_message(
    command: str,
    words: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(inputs)
    code = main([word.replace("{in}", str(inputs)) for word in command.split()])
    message = capsys.readouterr().err
    assert words.replace("{in}", str(inputs)) in message
    assert code in (1, 2)
    assert "unexpected" not in message
    assert "Traceback" not in message
    assert contents(inputs) == before
    assert not list(tmp_path.iterdir()), "nothing was written"


TINY = "--hidden-size 8 --layers 1 --heads 2 --intermediate-size 8 --threads 1 --batch-reads 2 --window 60"


@pytest.mark.filterwarnings("ignore")  # of transformers' own making
def test_training_goes_on_or_starts_over_in_its_own_folder_only(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tr"
    words = f"{EXPLANANDUM} {TINY}".replace("{in}", str(inputs)).replace("-o new", f"-o {folder}").split()
    assert main(words) == 0
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
        (lambda: ExplainerTraining(area_least=0.4), "--area-least: got 0.4, expected 0 to 0.3"),
        (lambda: EvaluationConfig(max_reads=0), "--max-reads: got 0, expected 1 or more"),
        (lambda: SplitRule("random"), "--split: got 'random', expected one of hash, stratified, column"),
    ],
)
def test_python_is_checked_as_the_command_is(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
