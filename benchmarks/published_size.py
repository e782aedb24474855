"""The published size with random weights: 54 M parameters, 4 + 55 + 1,878 classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wyr_batch.ranks import Rank

if TYPE_CHECKING:
    from wyr_batch.models.encoder import EncoderConfig
    from wyr_batch.models.families.nt import NtExplanandum

CLASSES = {"superkingdom": 4, "phylum": 55, "genus": 1878}
READ_BP = 1500
RANKS = tuple(Rank(name, tuple(f"{name} {i}" for i in range(n))) for name, n in CLASSES.items())


def make_checkpoints(folder: Path, config: EncoderConfig | None = None) -> None:
    """Write explanandum/ and explainer/; `config` makes another size."""
    import torch

    from wyr_batch.models.checkpoints import save_explainer, save_explanandum
    from wyr_batch.models.encoder import EncoderConfig
    from wyr_batch.models.families.nt import NtExplanandum
    from wyr_batch.models.lstm import LstmConfig, LstmExplainer

    torch.manual_seed(0)
    model = NtExplanandum(config or EncoderConfig(), list(CLASSES.values())).eval()
    decide(model)
    recipe = {"recipe": "random weights, seed 0"}
    save_explanandum(model, RANKS, folder / "explanandum", recipe)
    explainer = LstmExplainer(LstmConfig(num_classes=sum(CLASSES.values()))).eval()
    save_explainer(explainer, folder / "explainer", recipe)


def decide(model: NtExplanandum, deviation: float = 2.0) -> None:
    """Scale and shift the random heads so that reads differ in their calls, and calls are not all but tied.

    Args:
        deviation: of each class's logits over reads.
    """
    import torch

    from wyr_batch.tokens.kmers import CLS_ID, FIRST_BASE_ID, FIRST_KMER_ID

    ids = torch.randint(FIRST_KMER_ID, FIRST_BASE_ID, (48, 100), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = CLS_ID
    with torch.no_grad():
        pooled = model.pool(model.encoder(ids), ids, None)
        for head in model.classifiers:
            logits = head(pooled)
            scale = deviation / logits.std(dim=0)
            head.weight.mul_(scale.unsqueeze(1))
            head.bias.copy_((head.bias - logits.mean(dim=0)) * scale)
