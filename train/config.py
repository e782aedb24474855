"""What trainings and evaluations are asked to do; every check of their options stands here.

Nothing heavy is imported, so that a wrong option is said before torch is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wyr_batch.checks.numbers import check_numbers
from wyr_batch.errors import UsageError
from wyr_batch.tokens.kmers import TOKEN_BP

if TYPE_CHECKING:
    from wyr_batch.models.encoder import EncoderConfig

MOST = 10**9  # of anything counted: far beyond use, and every product of two still fits in 64 bits
MOST_BATCH_READS = 10**6
MOST_THREADS = 4096
MOST_SEED = 2**32 - 1  # numpy takes no more
# What EncoderConfig.from_json reads again.
MOST_WIDTH, MOST_LAYERS = 1 << 20, 1000


def check_counts(counts: Sequence[tuple[str, int | None, int]], most: int = MOST) -> None:
    """Raise UsageError for the first option whose count is below its least, or absurdly large; None: not given."""
    check_numbers([(flag, value, least, math.inf) for flag, value, least in counts])
    check_numbers([(flag, value, least, most) for flag, value, least in counts])


def check_above_zero(numbers: Sequence[tuple[str, float]]) -> None:
    """Raise UsageError for the first option whose number is not finite and above 0."""
    for flag, value in numbers:
        if not 0 < value < math.inf:
            raise UsageError(f"{flag}: got {value}, expected a finite number above 0.")


def check_weights(numbers: Sequence[tuple[str, float]]) -> None:
    """Raise UsageError for the first option whose number is negative or not finite."""
    for flag, value in numbers:
        if not 0 <= value < math.inf:
            raise UsageError(f"{flag}: got {value}, expected a finite number, 0 or more.")


def check_words(words: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
    """Raise UsageError for the first option whose word is none of those it may be."""
    for flag, value, known in words:
        if value not in known:
            raise UsageError(f"{flag}: got {value!r}, expected one of {', '.join(known)}.")


@dataclass(frozen=True)
class LoopConfig:
    """How to optimise. Defaults are the paper's: learning rate 2e-4, cosine, no warm-up, no weight decay.

    Attributes:
        threads: of the CPU; 0 takes those the process may use.
    """

    steps: int
    evaluate_every: int
    learning_rate: float = 2e-4
    warmup_steps: int = 0
    weight_decay: float = 0.0
    patience: int = 5
    log_every: int = 50
    bf16: bool = False
    seed: int = 0
    gradient_accumulation: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        check_counts(
            [
                ("--steps", self.steps, 1),
                ("--evaluate-every", self.evaluate_every, 1),
                ("--patience", self.patience, 1),
                ("--gradient-accumulation", self.gradient_accumulation, 1),
            ]
        )
        check_counts([("--threads", self.threads, 0)], MOST_THREADS)
        check_counts([("--seed", self.seed, 0)], MOST_SEED)
        if not 0 <= self.warmup_steps <= self.steps:
            raise UsageError(f"--warmup-steps: got {self.warmup_steps}, expected 0 to {self.steps}, the --steps.")
        check_above_zero([("--learning-rate", self.learning_rate)])
        check_weights([("--weight-decay", self.weight_decay)])

    @property
    def n_batches(self) -> int:
        """Batches that all processes need together."""
        return self.steps * self.gradient_accumulation * int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class ReadsConfig:
    """Which sequences of a training Parquet a training takes.

    Attributes:
        null_share: of the sequences without a finest label.
        validation_reads: drawn from the validation part.
        min_sequences: that a finest class needs outside the test part.
    """

    null_share: float = 0.5
    validation_reads: int = 3000
    min_sequences: int = 1

    def __post_init__(self) -> None:
        check_numbers([("--null-share", self.null_share, 0, 1)])
        check_counts([("--validation-reads", self.validation_reads, 1), ("--min-sequences", self.min_sequences, 1)])


@dataclass(frozen=True)
class ExplanandumConfig:
    """What to train; sizes default to the built-in starter's."""

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 256
    pooling: str = "mean"
    balance: str = "sampling"
    window_bp: int = 1500
    batch_reads: int = 128
    full_share: float = 0.5
    null_leaf_weight: float = 8.0
    frame_loss: float = 0.5
    dropout: float = 0.1
    hide_share: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        check_counts(
            [
                ("--hidden-size", self.hidden_size, 2),
                ("--heads", self.num_attention_heads, 1),
                ("--intermediate-size", self.intermediate_size, 1),
            ],
            MOST_WIDTH,
        )
        check_counts([("--layers", self.num_hidden_layers, 1)], MOST_LAYERS)
        check_numbers([("--hide-share", self.hide_share, 0, 1)])
        _check_pieces(self)
        check_weights([("--frame-loss", self.frame_loss)])
        if not 0 <= self.dropout < 1:
            raise UsageError(f"--dropout: got {self.dropout}, expected 0 or more and less than 1.")
        check_words(
            [
                ("--pooling", self.pooling, ("mean", "cls")),
                ("--balance", self.balance, ("sampling", "weights", "none")),
            ]
        )
        self._check_heads()

    def _check_heads(self) -> None:
        width = self.hidden_size
        if width % 2:
            raise UsageError(f"--hidden-size: got {width}, expected an even number: positions turn pairs of features.")
        if width % self.num_attention_heads or width // self.num_attention_heads % 2:
            fitting = [n for n in range(1, width // 2 + 1) if width % n == 0 and width // n % 2 == 0]
            raise UsageError(
                f"--heads: got {self.num_attention_heads} for --hidden-size {width}, expected heads of the same even "
                f"number of features each: {', '.join(map(str, fitting))}."
            )

    def encoder(self) -> EncoderConfig:
        """Return the sizes of the encoder."""
        from wyr_batch.models.encoder import EncoderConfig

        return EncoderConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
        )


@dataclass(frozen=True)
class ExplainerTraining:
    """What to train for; the paper's batch of 48 and lambdas of 1.

    a and b bound the share of a read that one class's mask may open without a penalty. The paper does not give its
    values; 0.05 and 0.3 are those of Stalder et al. for images.
    """

    lambda_entropy: float = 1.0
    lambda_area: float = 1.0
    lambda_variation: float = 1.0
    lambda_other: float = 1.0
    area_least: float = 0.05
    area_most: float = 0.3
    complement: str = "entropy"
    entropy_scale: str = "classes"
    sharpness: float = 1.0
    complement_sharpness: float = 1.0
    rank_weights: tuple[float, ...] = ()
    targets: str = "predicted"
    warm_start_steps: int = 0
    warm_start_share: float = 0.45
    batch_reads: int = 48
    window_bp: int = 1500
    full_share: float = 0.5
    null_leaf_weight: float = 8.0
    compile: bool = False

    def __post_init__(self) -> None:
        check_numbers(
            [
                ("--area-most", self.area_most, 0, 1),
                ("--area-least", self.area_least, 0, self.area_most),
                ("--warm-start-share", self.warm_start_share, 0, 1),
            ]
        )
        check_counts([("--warm-start-steps", self.warm_start_steps, 0)])
        _check_pieces(self)
        check_above_zero(
            [
                ("--sharpness", self.sharpness),
                ("--complement-sharpness", self.complement_sharpness),
                ("--warm-start-share", self.warm_start_share),
            ]
        )
        check_weights(
            [
                ("--lambda-entropy", self.lambda_entropy),
                ("--lambda-area", self.lambda_area),
                ("--lambda-variation", self.lambda_variation),
                ("--lambda-other", self.lambda_other),
                *(("--rank-weights", weight) for weight in self.rank_weights),
            ]
        )
        if self.rank_weights and not any(self.rank_weights):
            raise UsageError("--rank-weights: got 0 for every rank, expected at least one above 0.")
        check_words(
            [
                ("--complement", self.complement, ("entropy", "call")),
                ("--entropy-scale", self.entropy_scale, ("classes", "log")),
                ("--targets", self.targets, ("predicted", "labels")),
            ]
        )

    def check_ranks(self, n_ranks: int) -> None:
        """Raise UsageError unless there is a weight for each rank, or none at all."""
        if self.rank_weights and len(self.rank_weights) != n_ranks:
            got = f"{len(self.rank_weights)} weights, expected {n_ranks}"
            raise UsageError(f"--rank-weights: got {got}. Give one for each rank, coarsest first.")


def _check_pieces(config: ExplanandumConfig | ExplainerTraining) -> None:
    """Check the options that both trainings cut their batches by."""
    check_counts([("--window", config.window_bp, TOKEN_BP)])
    check_counts([("--batch-reads", config.batch_reads, 1)], MOST_BATCH_READS)
    check_numbers([("--full-share", config.full_share, 0, 1)])
    check_weights([("--null-leaf-weight", config.null_leaf_weight)])


@dataclass(frozen=True)
class EvaluationConfig:
    """What to measure on.

    Attributes:
        explained: 'predicted' or 'labels', the classes that are explained.
        window_bp: each read's first so many bases.
        faithfulness_reads: how many reads, drawn at random, for the measures that hide tokens step by step. 0: none.
        examples: reads to keep with their masks, for figure 5.
        null_share: of the reads without a finest label.
        max_reads: how many reads, drawn at random; None takes all.
    """

    explained: str = "predicted"
    window_bp: int = 1500
    faithfulness_reads: int = 500
    examples: int = 4
    seed: int = 0
    null_share: float = 1.0
    max_reads: int | None = None

    def __post_init__(self) -> None:
        check_counts(
            [
                ("--window", self.window_bp, TOKEN_BP),
                ("--faithfulness-reads", self.faithfulness_reads, 0),
                ("--max-reads", self.max_reads, 1),
            ]
        )
        check_counts([("--seed", self.seed, 0)], MOST_SEED)
        check_numbers([("--null-share", self.null_share, 0, 1)])
        check_words([("--explain", self.explained, ("predicted", "labels"))])
