"""The fused function as a GPU computes it best: same inputs, same outputs, other order.

    ids -> Explanandum on plain embeddings -------> class per rank \\
        -> Explainer's features, beside it ------------------------> mask -> Explanandum on embeddings * mask

The LSTM Explainer reads token ids alone, and each of its steps waits for the one before, so it fills gaps that the
plain pass leaves. Made of loaded models, on copies; what the CPU computes and what is exported is models/fused.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wyr_batch.kernels.choose import LIMITS, Timer, device_name, fastest, gpu_seconds
from wyr_batch.kernels.plain import PLAIN, Padding
from wyr_batch.kernels.steps import chosen_steps
from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.families.nt import NtExplanandum
from wyr_batch.models.fused import Fused, FusedOutput, exact_sigmoid
from wyr_batch.models.gpu.encoder import GpuEncoder, Way
from wyr_batch.models.numbers import full_precision

logger = logging.getLogger(__name__)

Work = Callable[[], Tensor | None]
# Starts some work, and returns what waits for its result.
Aside = Callable[[Work], Work]


def at_once(work: Work) -> Work:
    """Do the work here and now: where there is no second stream."""
    done = work()
    return lambda: done


class GpuFused(Fused):
    """The whole of what a read goes through, batched, on a GPU."""

    def __init__(self, explanandum: NtExplanandum, explainer: Explainer, dtype: torch.dtype, max_tokens: int) -> None:
        """
        Args:
            explanandum, explainer: float32, on the CPU; left as they are.
            dtype: of the encoder's products; max_tokens: longest row, `<cls>` counted.
        """
        copied = copy.deepcopy(explanandum)
        super().__init__(copied, copy.deepcopy(explainer))
        self.explainer.prepare_for_gpu()
        self.encoder = GpuEncoder(copied.encoder, dtype, max_tokens)
        copied.base_model = torch.nn.Identity()  # type: ignore[assignment]
        self._chosen = "torch"
        self.eval()

    def choose_ways(
        self,
        compiler: Callable[..., Any] | None,
        kernels: bool,
        timer: Timer = gpu_seconds,
        timed: tuple[int, int] = (128, 256),
    ) -> None:
        """Take the fastest way through the encoder and the Explainer that is right; on the device.

        Args:
            compiler: `torch.compile`, tried on the encoder's layers; None leaves it out.
            kernels: try those of wyr_batch.kernels, which need Triton.
            timed: rows and tokens of the batch that is timed.
        """
        encoder, config = self.encoder, self.encoder.config
        device = encoder.cos.device
        ways: dict[str, Callable[..., Tensor]] = {"torch": encoder.run_layers}
        sizes = config.num_attention_heads, config.head_size, config.intermediate_size
        with torch.inference_mode():
            if kernels:
                steps = chosen_steps(*sizes, encoder.dtype, device, timer, timed)
                if steps != PLAIN:
                    ways["torch with kernels"] = partial(encoder.run_layers, steps=steps)
                self.explainer.choose_kernels(timer, timed)
            if compiler is not None:
                ways["torch.compile"] = Compiled(encoder.run_layers, compiler)
            if len(ways) > 1:
                key = device_name(device), encoder.dtype, config, tuple(ways)
                cases = [self._case(*timed, padded=False), self._case(3, 16, padded=True)]
                compared = {name: _kept(way) for name, way in ways.items()}
                self._chosen = fastest("encoder", compared, cases, 10 * LIMITS[encoder.dtype], key, timer)
                encoder.way = ways[self._chosen]

    @property
    def ways(self) -> dict[str, str]:
        """What goes through the encoder's layers, and what computes the Explainer's LSTM."""
        way = self.encoder.way
        encoder = "torch, for it did not compile" if isinstance(way, Compiled) and not way.works else self._chosen
        return {"encoder": encoder, "Explainer": "triton" if getattr(self.explainer, "by_kernel", False) else "torch"}

    def _case(self, rows: int, n_tokens: int, padded: bool) -> tuple[Any, ...]:
        """Return arguments of `GpuEncoder.run_layers`, of no longer rows than the model takes."""
        encoder = self.encoder
        n_tokens = min(n_tokens, len(encoder.cos))
        device, generator = encoder.cos.device, torch.Generator().manual_seed(0)
        ids = torch.randint(encoder.config.vocab_size, (rows, n_tokens), generator=generator).to(torch.int32)
        mask = torch.rand(rows, n_tokens, generator=generator)
        valid = torch.arange(n_tokens).expand(rows, -1) < max(1, n_tokens - 5)
        ids[~valid if padded else ids == encoder.config.pad_token_id] = encoder.config.pad_token_id
        padding = Padding.of(valid.to(device)) if padded else None
        return ids.to(device), mask.to(device), padding, encoder.cos[:n_tokens], encoder.sin[:n_tokens]

    def forward(
        self,
        input_ids: Tensor,
        explain_ids: Tensor,
        masked_calls: bool = True,
        padded: bool = True,
        aside: Aside = at_once,
    ) -> FusedOutput:
        """Classify, explain, and classify again what the mask keeps; arguments as of `Fused`, and:

        Args:
            padded: False says that no row has padding.
            aside: runs the Explainer's own part beside the plain pass.
        """
        model, encoder = self.explanandum, self.encoder
        valid = model.valid(input_ids)
        padding = Padding.of(valid) if padded else None
        features = aside(lambda: self.explainer.ahead(input_ids, valid))
        hidden = encoder.encode(input_ids, None, padding)
        logits = model.logits(model.pool(hidden, input_ids, None))
        explained = torch.where(explain_ids < 0, model.top_classes(logits), explain_ids.long())
        plain = PlainPass(input_ids, valid, hidden, logits)
        mask_logits = self.explainer.class_logits(model, plain, explained + self.first_class, features())
        rank_masks = model.rank_masks(input_ids, exact_sigmoid(full_precision(mask_logits)))
        mask = model.joined_mask(rank_masks, explained)
        probs = model.probabilities(logits)
        masked_probs = probs[:, :0]
        if masked_calls:
            masked_hidden = encoder.encode(input_ids, mask, padding)
            masked_probs = model.probabilities(model.logits(model.pool(masked_hidden, input_ids, mask)))
        return FusedOutput(
            mask=mask,
            rank_masks=rank_masks,
            explained_ids=explained.to(torch.int32),
            probs=probs,
            masked_probs=masked_probs,
        )


def _kept(way: Way) -> Way:
    """Return a way that gives 0 at padding, where what it gives means nothing."""

    def kept(input_ids: Tensor, mask: Tensor | None, padding: Padding | None, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = way(input_ids, mask, padding, cos, sin)
        return hidden if padding is None else hidden * padding.valid.unsqueeze(-1)

    return kept


class Compiled:
    """`GpuEncoder.run_layers`, compiled by torch; if that fails, a message says so, and it goes on as it was written.

    torch compiles once for all sizes but 1, so a single row is run twice over, and rows of one token as written.
    """

    def __init__(self, plain: Way, compiler: Callable[..., Any]) -> None:
        self._plain = plain
        self._compiled: Way | None = compiler(plain, dynamic=True)

    @property
    def works(self) -> bool:
        """It has not failed so far."""
        return self._compiled is not None

    def __call__(
        self, input_ids: Tensor, mask: Tensor | None, padding: Padding | None, cos: Tensor, sin: Tensor
    ) -> Tensor:
        rows, n_tokens = input_ids.shape
        failure = ""
        if self._compiled is not None and n_tokens > 1:
            batch = (input_ids, mask, padding) if rows > 1 else _twice(input_ids, mask, padding)
            try:
                return self._compiled(*batch, cos, sin)[:rows]
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the compiler's own, its C++ and CUDA compilers', Triton's
                failure = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if failure:
            self._compiled = None
            logger.warning("torch.compile does not work here (%s): going on without it, more slowly", failure)
        return self._plain(input_ids, mask, padding, cos, sin)


def _twice(
    input_ids: Tensor, mask: Tensor | None, padding: Padding | None
) -> tuple[Tensor, Tensor | None, Padding | None]:
    """Return a batch of one row with that row twice."""
    return (
        torch.cat((input_ids, input_ids)),
        None if mask is None else torch.cat((mask, mask)),
        None if padding is None else Padding(*(torch.cat((each, each)) for each in padding)),
    )
