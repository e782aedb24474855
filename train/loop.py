"""The training loop: transformers' Trainer, fed with step-indexed batches and logging every loss term.

Several GPUs: `torchrun --nproc-per-node 4 $(which wyr-batch) train explanandum ...`; each takes its share of the
batches, and the first one writes.

Trainer brings what any training needs (cosine schedule, early stopping, mixed precision, checkpoints, resume,
several GPUs); this module only says what a batch, a loss and an evaluation are.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from wyr_batch.errors import ModelError

from .data import LabelledBatch, StepBatches

Losses = Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]
Evaluate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class LoopConfig:
    """How to optimise. Defaults are the paper's: learning rate 2e-4, cosine, no warm-up, no weight decay."""

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

    @property
    def n_batches(self) -> int:
        """Batches that all processes need together."""
        return self.steps * self.gradient_accumulation * int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """True in the process that writes the results; the only one unless started by torchrun or accelerate."""
    return os.environ.get("RANK", "0") == "0"


def _as_dict(items: list[LabelledBatch]) -> dict[str, Tensor]:
    return vars(items[0]) | {}


class _Progress(TrainerCallback):
    """One line on stderr per log, and the same as JSON in log.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        entry = {"step": state.global_step, **(logs or {})}
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items())
        print("  ".join(shown), file=sys.stderr, flush=True)


class StepTrainer(Trainer):
    """Trains on `StepBatches` with a loss that is a sum of named terms."""

    def __init__(self, batches: StepBatches, losses: Losses, evaluate: Evaluate, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches, self.losses, self.evaluate_model = batches, losses, evaluate
        self._terms: dict[str, list[float]] = defaultdict(list)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(self.batches, batch_size=1, shuffle=False, collate_fn=_as_dict)
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        terms = self.losses(model, inputs)
        self._stop_if_not_finite(terms, inputs)
        for name, value in terms.items():
            self._terms[name].append(float(value.detach()))
        return torch.stack(list(terms.values())).sum()

    def _stop_if_not_finite(self, terms: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        """Raise ModelError, with the batch saved, where a term is NaN or infinite."""
        broken = [name for name, value in terms.items() if not torch.isfinite(value)]
        if broken:
            step = self.state.global_step
            path = Path(self.args.output_dir).parent / f"bad-batch-{step}.pt"
            torch.save({name: value.cpu() for name, value in inputs.items()}, path)
            raise ModelError(
                f"step {step}, loss term {broken[0]}: got {float(terms[broken[0]])}, expected a finite number. "
                f"Its batch is in {path}. Lower --learning-rate or leave --bf16 out; --resume goes on from the last "
                "checkpoint."
            )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:  # the mean loss since the last time: say what it is made of
            logs = logs | {name: sum(values) / len(values) for name, values in self._terms.items()}
            self._terms.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.model.eval()
        with torch.no_grad():
            metrics = {f"eval_{name}": value for name, value in self.evaluate_model(self.model).items()}
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, None if there is none.

    A training killed while it saves leaves a directory without trainer_state.json, the file that Trainer writes last,
    or with a piece of it. Such a one is passed over, and said on stderr; Trainer writes it again.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            print(f"{checkpoint}: not whole, passed over", file=sys.stderr, flush=True)
        else:
            return checkpoint
    return None


def train(
    model: nn.Module,
    batches: StepBatches,
    losses: Losses,
    evaluate: Evaluate,
    folder: Path,
    config: LoopConfig,
    resume: bool,
    *,
    autocast: bool = True,
) -> dict[str, Any]:
    """Train `model` in place and leave it with the weights of the best evaluation (`loss`, lower is better).

    Args:
        losses: (model, batch) -> named terms whose sum is minimised.
        evaluate: model -> metrics, `loss` among them.
        folder: for checkpoints and log.jsonl.
        resume: go on from the newest checkpoint in `folder`, if there is one.
        autocast: with config.bf16, run all of `losses` in mixed precision; False leaves that to `losses`.
    Returns: what was run, for the provenance record.
    """
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        optim="adamw_torch",
        max_grad_norm=1.0,
        bf16=config.bf16 and autocast,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=min(config.log_every, config.evaluate_every),
        eval_strategy="steps",
        eval_steps=config.evaluate_every,
        save_strategy="steps",
        save_steps=config.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    trainer = StepTrainer(
        batches,
        losses,
        evaluate,
        model=model,
        args=arguments,
        train_dataset=batches,
        eval_dataset=batches,
        callbacks=[EarlyStoppingCallback(config.patience), _Progress(folder / "log.jsonl")],
    )
    trainer.remove_callback(PrinterCallback)
    last = last_whole_checkpoint(Path(arguments.output_dir)) if resume else None
    result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    return {
        **asdict(config),
        "steps_done": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "train_s": round(result.metrics["train_runtime"], 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
