"""What an Explainer is: from the plain pass and the classes asked about, a mask logit for every token and class.

    PlainPass (ids, hidden states, logits) + classes -> Explainer.class_logits -> sigmoid -> masks

Two kinds keep this contract: `lstm` (models/lstm.py), the paper's, which reads token ids alone, and `readout`
(models/readout.py), which reads what the Explanandum has made of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from wyr_batch.errors import ModelError
from wyr_batch.models.explanandum import Explanandum

if TYPE_CHECKING:
    from wyr_batch.kernels.choose import Timer

KINDS = ("lstm", "readout")


class PlainPass(NamedTuple):
    """What the Explanandum computes on the plain read.

    Attributes:
        input_ids: int32 or int64 [B, T], right-padded.
        valid: bool [B, T], True at tokens.
        hidden: float [B, T, D], final hidden states; what stands at padding means nothing.
        logits: float32 [B, C], of every class.
    """

    input_ids: Tensor
    valid: Tensor
    hidden: Tensor
    logits: Tensor


class Sizes(Protocol):
    """What every kind's config has."""

    @property
    def num_classes(self) -> int: ...

    def to_json(self) -> str: ...


class Explainer(nn.Module):
    """Base of the kinds."""

    kind: ClassVar[str]
    config: Sizes

    def ahead(self, input_ids: Tensor, valid: Tensor) -> Tensor | None:
        """Return what can be computed while the plain pass runs, for `class_logits`; as a rule: nothing.

        Args:
            input_ids, valid: as in `PlainPass`.
        """
        return None

    def class_logits(
        self, explanandum: Explanandum, plain: PlainPass, classes: Tensor, ahead: Tensor | None = None
    ) -> Tensor:
        """Return mask logits of chosen classes.

        Args:
            explanandum: the classifier that made `plain`.
            ahead: what `ahead` has given of the same reads; None computes it here.
            classes: int64 [B, N], indices among all C classes; N a multiple of the ranks, in rank order over and over.
        Returns: float32 [B, N, T]; what stands at padding means nothing.
        """
        raise NotImplementedError

    def sizes_of(self, explanandum: Explanandum) -> dict[str, int]:
        """Return the fields of `config` that a classifier sets, and what it sets them to."""
        return {"num_classes": sum(explanandum.n_classes)}

    def choose_kernels(self, timer: Timer, timed: tuple[int, int]) -> None:
        """Take kernels where they are right and faster; after `prepare_for_gpu`, on the device. As a rule: nothing.

        Args:
            timed: rows and tokens of the batch that is timed.
        """

    def prepare_for_gpu(self) -> None:
        """Change what computes faster on a GPU in another form; after loading, on a copy. As a rule: nothing."""


def check_pair(explanandum: Explanandum, explainer: Explainer, name: str = "explainer") -> None:
    """Raise ModelError, calling the Explainer by `name`, unless it is one for this classifier."""
    for field, wanted in explainer.sizes_of(explanandum).items():
        if (found := getattr(explainer.config, field)) != wanted:
            advice = "Name the two that were trained together."
            raise ModelError(name, f"{field} {found}", f"{wanted}, that of the Explanandum", advice)
