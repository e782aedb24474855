"""What trainings and evaluations are asked to do: every setting, with its default and its check.

Messages name a setting by its flag (`--steps`); one that only a --config file can give, by its field (`warmup_steps`).
Nothing heavy is imported, so that a wrong setting is reported before torch is imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wyr_batch.checks.numbers import check_numbers
from wyr_batch.errors import UsageError
from wyr_batch.tokens.kmers import TOKEN_BP

from .limits import (
    MOST_BATCH_READS,
    MOST_LAYERS,
    MOST_SEED,
    MOST_THREADS,
    MOST_WIDTH,
    check_above_zero,
    check_counts,
    check_weights,
    check_words,
)

if TYPE_CHECKING:
    from wyr_batch.models.encoder import EncoderConfig

EXPLAINER_KINDS = ("lstm", "readout")
POOLINGS = ("mean", "cls")
BALANCES = ("sampling", "weights", "none")


@dataclass(frozen=True)
class LoopConfig:
    """How to optimise. Defaults are the paper's: learning rate 2e-4, cosine, no warm-up, no weight decay.

    Attributes:
        patience: evaluations without progress before the training stops early.
        log_every: steps between lines of log.jsonl.
        gradient_accumulation: batches per step.
        threads: of the CPU; 0 takes those the process may use.
    """

    steps: int
    evaluate_every: int = 500
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
                ("patience", self.patience, 1),
                ("log_every", self.log_every, 1),
                ("gradient_accumulation", self.gradient_accumulation, 1),
            ]
        )
        check_counts([("--threads", self.threads, 0)], MOST_THREADS)
        check_counts([("--seed", self.seed, 0)], MOST_SEED)
        if not 0 <= self.warmup_steps <= self.steps:
            raise UsageError("warmup_steps", self.warmup_steps, f"0 to {self.steps}, the number of steps")
        check_above_zero([("--learning-rate", self.learning_rate)])
        check_weights([("weight_decay", self.weight_decay)])

    @property
    def n_batches(self) -> int:
        """Batches that all processes need together."""
        return self.steps * self.gradient_accumulation * int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class ExplanandumLoop(LoopConfig):
    """How to optimise an Explanandum."""

    steps: int = 4000


@dataclass(frozen=True)
class ExplainerLoop(LoopConfig):
    """How to optimise an Explainer."""

    steps: int = 5000


@dataclass(frozen=True)
class ReadsConfig:
    """Which sequences of a training Parquet a training takes.

    Attributes:
        null_share: of the sequences without a finest label.
        validation_reads: drawn from the validation part.
    """

    null_share: float = 0.5
    validation_reads: int = 3000

    def __post_init__(self) -> None:
        check_numbers([("--null-share", self.null_share, 0, 1)])
        check_counts([("--validation-reads", self.validation_reads, 1)])


@dataclass(frozen=True)
class ExplanandumReads(ReadsConfig):
    """Which sequences and classes an Explanandum is trained on.

    Attributes:
        min_sequences: that a finest class needs outside the test part; the default gives the starter's classes.
    """

    min_sequences: int = 780

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts([("--min-sequences", self.min_sequences, 1)])


@dataclass(frozen=True)
class BatchConfig:
    """How both trainings make batches of reads.

    Attributes:
        window_bp: longest piece of a read of 6-mers.
        full_share: of the reads, those not cut shorter than the window.
        null_leaf_weight: how much more often reads without a finest label are drawn than those of one finest class.
        compile: the encoder, with torch.compile.
    """

    window_bp: int = 1500
    batch_reads: int = 48
    full_share: float = 0.5
    null_leaf_weight: float = 8.0
    compile: bool = False

    def __post_init__(self) -> None:
        check_counts([("--window", self.window_bp, TOKEN_BP)])
        check_counts([("--batch-reads", self.batch_reads, 1)], MOST_BATCH_READS)
        check_numbers([("full_share", self.full_share, 0, 1)])
        check_weights([("null_leaf_weight", self.null_leaf_weight)])


@dataclass(frozen=True)
class ExplanandumConfig(BatchConfig):
    """What to train; sizes default to the built-in starter's.

    Attributes:
        frame_loss: weight of the helper task, strand and codon phase; 0 does without it.
        dropout: of pooled features.
        hide_share: up to this share of the tokens is hidden, in half of the reads.
    """

    batch_reads: int = 128
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 256
    pooling: str = "mean"
    balance: str = "sampling"
    frame_loss: float = 0.5
    dropout: float = 0.1
    hide_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(
            [
                ("--hidden-size", self.hidden_size, 2),
                ("--heads", self.num_attention_heads, 1),
                ("--intermediate-size", self.intermediate_size, 1),
            ],
            MOST_WIDTH,
        )
        check_counts([("--layers", self.num_hidden_layers, 1)], MOST_LAYERS)
        check_numbers([("hide_share", self.hide_share, 0, 1)])
        check_weights([("frame_loss", self.frame_loss)])
        if not 0 <= self.dropout < 1:
            raise UsageError("dropout", self.dropout, "0 or more and less than 1")
        check_words([("--pooling", self.pooling, POOLINGS), ("--balance", self.balance, BALANCES)])
        self._check_heads()

    def _check_heads(self) -> None:
        width = self.hidden_size
        if width % 2:
            raise UsageError("--hidden-size", width, "an even number: positions turn pairs of features")
        if width % self.num_attention_heads or width // self.num_attention_heads % 2:
            fitting = [n for n in range(1, width // 2 + 1) if width % n == 0 and width // n % 2 == 0]
            raise UsageError(
                "--heads",
                f"{self.num_attention_heads} for --hidden-size {width}",
                f"heads of the same even number of features each: {', '.join(map(str, fitting))}",
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
class ExplainerTraining(BatchConfig):
    """What to train for; the paper's batch of 48 and lambdas of 1.

    Attributes:
        window_tokens: of the longest row where tokens are no 6-mers, special ones not counted; 0 takes as many as the
            classifier does.
        lambda_other: weight of the other classes' masks in the terms of area and variation; of `lstm` only.
        area_least, area_most: the paper's a and b, which bound the share of a read that one class's mask may open
            without a penalty. The paper does not give them; 0.05 and 0.3 are those of Stalder et al. for images.
        complement: 'entropy' (the paper's), or 'call', which only minds the explained class.
        entropy_scale: 'classes' (the paper's) or 'log', what the entropy is divided by.
        sharpness, complement_sharpness: multiply the classifier's logits, for the masked read and for what is hidden.
        rank_weights, complement_rank_weights: of the classification term and of the complement's, coarsest first; none
            weighs all alike.
        targets: 'predicted' or 'labels', the classes to explain.
        warm_start_steps: steps that first teach where tokens speak for the class, on a share of them.
        kind: 'lstm' (the paper's) or 'readout'.
        chimera_share: share of the reads that are joined of pieces of two reads, and asked for one of them.
        lambda_outside: weight of what a mask opens in the other half of a chimera.
        target_area: mean mask to hold, in place of the paper's area term; 0 leaves the paper's.
    """

    kind: str = "lstm"
    window_tokens: int = 0
    chimera_share: float = 0.0
    lambda_outside: float = 0.0
    target_area: float = 0.0
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
    complement_rank_weights: tuple[float, ...] = ()
    targets: str = "predicted"
    warm_start_steps: int = 0
    warm_start_share: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(
            [
                ("area_most", self.area_most, 0, 1),
                ("area_least", self.area_least, 0, self.area_most),
                ("warm_start_share", self.warm_start_share, 0, 1),
                ("--chimera-share", self.chimera_share, 0, 1),
                ("--target-area", self.target_area, 0, 1),
            ]
        )
        check_counts([("warm_start_steps", self.warm_start_steps, 0), ("window_tokens", self.window_tokens, 0)])
        check_above_zero(
            [
                ("sharpness", self.sharpness),
                ("complement_sharpness", self.complement_sharpness),
                ("warm_start_share", self.warm_start_share),
            ]
        )
        check_weights(
            [
                ("lambda_entropy", self.lambda_entropy),
                ("--lambda-area", self.lambda_area),
                ("lambda_variation", self.lambda_variation),
                ("lambda_other", self.lambda_other),
                ("lambda_outside", self.lambda_outside),
                *(("rank_weights", weight) for weight in self.rank_weights),
                *(("complement_rank_weights", weight) for weight in self.complement_rank_weights),
            ]
        )
        if self.rank_weights and not any(self.rank_weights):
            raise UsageError("rank_weights", "0 for every rank", "at least one above 0")
        check_words(
            [
                ("--kind", self.kind, EXPLAINER_KINDS),
                ("complement", self.complement, ("entropy", "call")),
                ("entropy_scale", self.entropy_scale, ("classes", "log")),
                ("targets", self.targets, ("predicted", "labels")),
            ]
        )

    @property
    def weight_of_others(self) -> float:
        """`lambda_other`, 0 for a kind that has not the masks of all classes at once."""
        return self.lambda_other if self.kind == "lstm" else 0.0

    def check_ranks(self, n_ranks: int) -> None:
        """Raise UsageError unless there is a weight for each rank, or none at all."""
        for name in ("rank_weights", "complement_rank_weights"):
            weights = getattr(self, name)
            if weights and len(weights) != n_ranks:
                raise UsageError(name, f"{len(weights)} weights", n_ranks, "Give one for each rank, coarsest first.")


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
        chimeras: how many for each rank. 0: none.
    """

    explained: str = "predicted"
    window_bp: int = 1500
    faithfulness_reads: int = 500
    examples: int = 4
    seed: int = 0
    null_share: float = 1.0
    max_reads: int | None = None
    chimeras: int = 100

    def __post_init__(self) -> None:
        check_counts(
            [
                ("--window", self.window_bp, TOKEN_BP),
                ("--faithfulness-reads", self.faithfulness_reads, 0),
                ("--max-reads", self.max_reads, 1),
                ("--chimeras", self.chimeras, 0),
            ]
        )
        check_counts([("--seed", self.seed, 0)], MOST_SEED)
        check_numbers([("--null-share", self.null_share, 0, 1)])
        check_words([("--explain", self.explained, ("predicted", "labels"))])
