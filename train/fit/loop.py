"""The training loop: transformers' Trainer, fed with step-indexed batches and logging every loss term.

Several GPUs: `torchrun --nproc-per-node 4 $(which wyr-batch) train explanandum ...`; each takes its share of the
batches, and the first one writes.

Trainer brings what any training needs (cosine schedule, early stopping, mixed precision, checkpoints, resume,
several GPUs); this module only says what a batch, a loss and an evaluation are.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from wyr_batch.checks.files import exists, shown_path, write_error
from wyr_batch.errors import ModelError, OutOfMemory
from wyr_batch.host import available_cpus
from wyr_batch.models.tensorfile import read_tensors

from ..config import LoopConfig
from ..data.batches import StepBatches
from ..data.pieces import LabelledBatch
from ..places import writing

Model = TypeVar("Model", bound=nn.Module)
Losses = Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]
Evaluate = Callable[[Model], dict[str, float]]


def set_threads(n_threads: int) -> None:
    """Give torch so many threads; 0: all that this process may use."""
    torch.set_num_threads(n_threads or available_cpus())


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
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items())
        print("  ".join(shown), file=sys.stderr, flush=True)


class StepTrainer(Trainer, Generic[Model]):
    """Trains on `StepBatches` with a loss that is a sum of named terms."""

    def __init__(self, batches: StepBatches, losses: Losses, evaluate: Evaluate[Model], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches, self.losses, self.evaluate_model = batches, losses, evaluate
        self._terms: dict[str, list[float]] = defaultdict(list)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(self.batches, batch_size=1, shuffle=False, collate_fn=_as_dict)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

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
            path = Path(cast(str, self.args.output_dir)).parent / f"bad-batch-{step}.pt"
            torch.save({name: value.cpu() for name, value in inputs.items()}, path)
            raise ModelError(
                f"step {step}, loss term {broken[0]}",
                float(terms[broken[0]]),
                "a finite number",
                f"Its batch is in {path}. Lower --learning-rate or leave --bf16 out; --resume goes on from "
                "the last checkpoint.",
            )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:  # the mean loss since the last time: say what it is made of
            logs = logs | {name: sum(values) / len(values) for name, values in self._terms.items()}
            self._terms.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        model = cast(Model, self.model)
        model.eval()
        with torch.no_grad():
            metrics = {f"eval_{name}": value for name, value in self.evaluate_model(model).items()}
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, None if there is none.

    A training killed while it saves leaves a directory without trainer_state.json, the file that Trainer writes last,
    or with a piece of it. Such a one is passed over, and said on stderr; Trainer writes it again.
    """
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*")}
    numbered = {path: int(match[1]) for path, match in steps.items() if match}
    for checkpoint in sorted(numbered, key=numbered.__getitem__, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            print(f"{checkpoint}: not whole, passed over", file=sys.stderr, flush=True)
        else:
            return checkpoint
    return None


def _check_resumable(checkpoint: Path, model: nn.Module, steps: int) -> None:
    """Raise ModelError unless a checkpoint is of this model, and of a training that has steps left."""
    path = checkpoint / "model.safetensors"
    saved = {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    name = next((name for name in sorted(saved | wanted) if saved.get(name) != wanted.get(name)), None)
    if name is not None:
        raise ModelError(
            f"{shown_path(path)}, tensor {name}",
            f"shape {saved.get(name)}",
            wanted.get(name),
            "Resume with the data and the sizes that the training began with, or begin another in another folder.",
        )
    done = int(checkpoint.name.split("-")[1])
    if done > steps:
        raise ModelError(shown_path(checkpoint), f"{done} steps done", f"at most {steps}, the --steps", "Ask for more.")


def _set_aside(path: Path) -> None:
    """Give what an earlier training left another name: mixed with this one's, --resume would go on from either."""
    if exists(path):
        other = next(o for n in itertools.count(1) if not exists(o := path.with_name(f"{path.name}.{n}")))
        path.rename(other)
        print(f"{path}: of an earlier training, now {other.name}", file=sys.stderr, flush=True)


@contextmanager
def said_clearly(folder: Path) -> Iterator[None]:
    """Turn what a full disk or too little memory raises in a training into an error that says so."""
    try:
        with writing(folder):
            yield
    except SafetensorError as problem:
        raise write_error(folder, problem) from None
    except (MemoryError, RuntimeError) as problem:
        if isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(problem):
            got = str(problem).strip().splitlines()[0] if str(problem).strip() else "no memory"
            raise OutOfMemory(
                "training", f"'{got[:200]}'", "enough memory", "Lower --batch-reads, --window or the sizes."
            ) from None
        raise


def train(
    model: Model,
    batches: StepBatches,
    losses: Losses,
    evaluate: Evaluate[Model],
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
        folder: for checkpoints and log.jsonl; those of an earlier training get another name.
        resume: go on from the newest checkpoint in `folder`, if there is one.
        autocast: with config.bf16, run all of `losses` in mixed precision; False leaves that to `losses`.
    Returns: what was run, for the provenance record.
    Raises: ModelError if a loss is no finite number, or the checkpoint is of another model.
    """
    evaluate_every = min(config.evaluate_every, config.steps)
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
        logging_steps=min(config.log_every, evaluate_every),
        eval_strategy="steps",
        eval_steps=evaluate_every,
        save_strategy="steps",
        save_steps=evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
    )
    checkpoints, log = Path(cast(str, arguments.output_dir)), folder / "log.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not resume and is_first_process():
        _set_aside(checkpoints)
        _set_aside(log)
    last = last_whole_checkpoint(checkpoints) if resume else None
    if last is not None:
        _check_resumable(last, model, config.steps)
    trainer = StepTrainer(
        batches,
        losses,
        evaluate,
        model=model,
        args=arguments,
        train_dataset=batches,
        eval_dataset=batches,
        callbacks=[EarlyStoppingCallback(config.patience), _Progress(log)],
    )
    trainer.remove_callback(PrinterCallback)
    result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    return {
        **asdict(config),
        "steps_done": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "train_s": round(result.metrics["train_runtime"], 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
