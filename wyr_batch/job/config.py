"""What a run is asked to do; every check of the options stands here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wyr_batch.bundle import Bundle
from wyr_batch.checks.files import exists, is_file, is_folder
from wyr_batch.checks.numbers import check_numbers
from wyr_batch.choose import EngineRequest
from wyr_batch.errors import OutputError, UsageError
from wyr_batch.host import available_cpus
from wyr_batch.ranks import Rank
from wyr_batch.reads.stream import Inputs
from wyr_batch.rows.parts import PART_S
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.open import TEXTS, opener
from wyr_batch.tokens.kmers import TOKEN_BP
from wyr_batch.tokens.tokens import Int32s

MASK_DTYPES = ("float32", "float16", "uint8")

_ADDRESS = re.compile(r"\[?[\w.:-]+\]?:\d+")


@dataclass(frozen=True)
class RunConfig:
    """Options of `wyr-batch run`, named as its flags.

    Attributes:
        inputs: files of reads, proteins or texts, whichever the bundle takes; '-' is standard input.
        output: the Parquet file, or the directory of a dataset.
        model: directory of a bundle; None is the built-in starter.
        device: 'auto', 'cpu', 'cuda', 'cuda:N' or 'cuda:all'.
        runtime: 'auto', 'onnx', 'tensorrt', 'openvino' or 'torch'.
        dtype: 'auto', or a precision that the bundle has.
        threads: 0 takes the CPUs the process may use.
        max_batch_tokens: padded tokens per batch; 0 takes the device's default.
        mask_dtype: 'float32', 'float16' or 'uint8'.
        rank_masks: write one mask column per rank as well.
        top_k: write the best k labels per rank, if it is 2 or more.
        sequences: write the bases.
        no_masked_calls: leave out the second pass, and with it the calls on the masked reads.
        confidence: a call with a lower probability is null.
        explain: 'predicted', or RANK=LABEL for some ranks.
        window_bp, overlap_bp: None takes the bundle's window and an eighth of it.
        max_reads: stop after so many, each mate a read; even for pairs; None takes all.
        min_length: shorter reads are not explained, in bases.
        dataset: the output is a directory of parts; so is one that exists as a directory.
        paired: inputs are mates, two files at a time.
        interleaved: consecutive reads are mates.
        text_column, pair_column, id_column: of tables of texts: the texts, the second texts of pairs, the names; None
            takes the usual column of texts, no pairs, and the numbers of the rows.
        resume: go on after what an earlier run has finished.
        overwrite: replace an existing output.
        part_s: a part is finished at least so often; what is not in one is lost when the run is killed.
        ray: address of a Ray cluster to run on; '' leaves finding one to Ray, None runs here.
    """

    inputs: tuple[str, ...]
    output: Path
    model: Path | None = None
    device: str = "auto"
    runtime: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    max_batch_tokens: int = 0
    mask_dtype: str = "float32"
    rank_masks: bool = False
    top_k: int = 1
    sequences: bool = False
    no_masked_calls: bool = False
    confidence: float = 0.0
    explain: tuple[str, ...] = ()
    window_bp: int | None = None
    overlap_bp: int | None = None
    max_reads: int | None = None
    min_length: int = 0
    dataset: bool = False
    paired: bool = False
    interleaved: bool = False
    text_column: str | None = None
    pair_column: str | None = None
    id_column: str | None = None
    resume: bool = False
    overwrite: bool = False
    part_s: float = PART_S
    ray: str | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("FILES", "none", "at least one file of reads, or - for standard input")
        if self.inputs.count("-") > 1:
            raise UsageError("FILES", "- more than once", "standard input at most once")
        if self.paired and self.interleaved:
            raise UsageError("--paired", "--interleaved as well", "one of the two")
        if self.paired and len(self.inputs) % 2:
            got = f"{len(self.inputs)} files"
            raise UsageError("--paired", got, "two at a time: R1 R2, or A_R1 A_R2 B_R1 B_R2")
        if self.resume and self.overwrite:
            raise UsageError("--resume", "--overwrite as well", "one of the two")
        check_columns(self.mask_dtype, self.top_k, self.confidence)
        check_numbers(
            [
                ("--min-length", self.min_length, 0, math.inf),
                ("--threads", self.threads, 0, math.inf),
                ("--max-batch-tokens", self.max_batch_tokens, 0, math.inf),
                ("--part-seconds", self.part_s, 0, math.inf),
                ("--max-reads", self.max_reads, 1, math.inf),
                ("--window", self.window_bp, TOKEN_BP, math.inf),
                ("--overlap", self.overlap_bp, 0, math.inf),
            ]
        )
        if (self.paired or self.interleaved) and (self.max_reads or 0) % 2:
            flag = "--paired" if self.paired else "--interleaved"
            raise UsageError(
                "--max-reads", f"{self.max_reads} with {flag}", "an even number", "Each mate is a read, two are a pair."
            )
        check_explain(self.explain)
        if self.ray is not None:
            self._check_ray(self.ray)

    def _check_ray(self, address: str) -> None:
        if not (address in ("", "auto", "local") or address.startswith("ray://") or _ADDRESS.fullmatch(address)):
            raise UsageError(
                "--ray",
                f"{address!r}",
                "auto, local, HOST:PORT or ray://HOST:PORT",
                "Give FILES before --ray, or write --ray=ADDRESS.",
            )
        if self.device.startswith("cuda:") and self.device != "cuda:all":
            raise UsageError("--device", f"{self.device} with --ray", "cuda: Ray gives a worker its GPU")
        for path in self.inputs:
            if path == "-" or (exists(path) and not (is_file(path) or is_folder(path))):
                raise UsageError(
                    "--ray",
                    f"{path} as input",
                    "files, which can be read again when a machine is lost",
                    "Write the reads to a file first.",
                )

    @property
    def engine_request(self) -> EngineRequest:
        """What is to run the bundle."""
        return EngineRequest(
            self.device, self.runtime, self.dtype, self.n_threads, masked_calls=not self.no_masked_calls
        )

    def reading(self, kind: str) -> Inputs:
        """Return what is read, and how.

        Args:
            kind: what the bundle takes: 'reads', 'proteins' or 'text'.
        Raises: UsageError for an option that is not for inputs of this kind.
        """
        columns = TextColumns(self.text_column, self.pair_column, self.id_column)
        if kind == TEXTS:
            for flag, is_given in (("--paired", self.paired), ("--interleaved", self.interleaved)):
                if is_given:
                    raise UsageError(flag, "a model of texts", "one of reads", "Pairs of texts: --pair-column.")
        elif columns.flags:
            raise UsageError(columns.flags[0], f"a model of {kind}", "one of texts", "Leave the option out.")
        return Inputs(self.inputs, self.paired, self.interleaved, self.max_reads, open_input=opener(kind, columns))

    @property
    def is_dataset(self) -> bool:
        return self.dataset or is_folder(self.output, OutputError)

    def identity(self) -> dict[str, object]:
        """Return the options that rows depend on; a run is resumed with the same ones."""
        names = ("dtype", "mask_dtype", "rank_masks", "top_k", "confidence", "explain", "window_bp", "overlap_bp")
        more = ("max_reads", "min_length", "paired", "interleaved", "sequences", "no_masked_calls")
        columns = ("text_column", "pair_column", "id_column")
        found = {name: getattr(self, name) for name in (*names, *more, *columns)}
        return {**found, "explain": list(self.explain), "dataset": self.is_dataset}

    @property
    def n_threads(self) -> int:
        return self.threads or available_cpus()

    def window_tokens(self, bundle: Bundle) -> tuple[int, int]:
        """Return tokens per window and per overlap, special ones not counted.

        Raises: UsageError if the model takes less, the overlap leaves no progress, or tokens have no length in bases.
        """
        if bundle.vocabulary.file:
            for flag, given in (("--window", self.window_bp), ("--overlap", self.overlap_bp)):
                if given is not None:
                    size = f"{bundle.window_tokens} tokens, the windows of {bundle.name}"
                    raise UsageError(flag, f"{given} bp", f"none: tokens differ in length. Windows have {size}")
            return bundle.window_tokens, bundle.window_tokens // 8
        window_bp = bundle.window_bp if self.window_bp is None else self.window_bp
        overlap_bp = window_bp // 8 if self.overlap_bp is None else self.overlap_bp
        window, overlap = window_bp // TOKEN_BP, overlap_bp // TOKEN_BP
        most = bundle.max_tokens - bundle.vocabulary.n_special
        if not 1 <= window <= most:
            raise UsageError(
                "--window",
                f"{window_bp} bp ({window} tokens)",
                f"{TOKEN_BP} to {most * TOKEN_BP} bp ({most} tokens, what {bundle.name} takes)",
            )
        if not 0 <= overlap <= window // 2:
            raise UsageError("--overlap", f"{overlap_bp} bp", f"0 to {window_bp // 2}, half of the window")
        return window, overlap

    def explain_row(self, bundle: Bundle) -> Int32s:
        """Return the class to explain per rank, int32 [R]; -1 where the predicted one. Raises: UsageError."""
        return explain_row(self.explain, bundle.ranks)


def check_columns(mask_dtype: str, top_k: int, confidence: float) -> None:
    """Raise UsageError for a value of the options that say what the columns are."""
    if mask_dtype not in MASK_DTYPES:
        raise UsageError("--mask-dtype", mask_dtype, f"one of {', '.join(MASK_DTYPES)}")
    check_numbers([("--top-k", top_k, 1, math.inf), ("--confidence", confidence, 0, 1)])


def check_explain(explain: Sequence[str]) -> None:
    """Raise UsageError for a rank that is asked about twice, or for 'predicted' beside classes."""
    if "predicted" in explain and len(explain) > 1:
        raise UsageError("--explain", ", ".join(explain), "predicted alone, or classes")
    names = [item.partition("=")[0] for item in explain]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError("--explain", f"the rank {twice!r} more than once", "one class of it")


def explain_row(explain: Sequence[str], ranks: Sequence[Rank]) -> Int32s:
    """Return the class to explain per rank.

    Args:
        explain: 'predicted', or RANK=LABEL for some ranks.
    Returns: int32 [R], index within the rank; -1 where the predicted one.
    Raises: UsageError for a rank or label that is not there.
    """
    import numpy as np

    wanted = np.full(len(ranks), -1, np.int32)
    names = [rank.name for rank in ranks]
    for item in explain:
        if item == "predicted":
            continue
        name, _, label = item.partition("=")
        if name not in names:
            raise UsageError("--explain", f"rank {name!r}", f"one of {', '.join(names)}, as RANK=LABEL")
        labels = ranks[names.index(name)].labels
        if label not in labels:
            shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
            raise UsageError("--explain", f"{name} {label!r}", f"one of its {len(labels)} labels: {shown}")
        wanted[names.index(name)] = labels.index(label)
    return wanted
