"""The published size with random weights: 54 M parameters, 4 + 55 + 1,878 classes; models, checkpoints and reads."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

from wyr_batch.models.checkpoints import save_explainer, save_explanandum
from wyr_batch.models.encoder import EncoderConfig
from wyr_batch.models.explainer import Explainer, ExplainerConfig
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.ranks import Rank

CLASSES = {"superkingdom": 4, "phylum": 55, "genus": 1878}
READ_BP = 1500
RANKS = tuple(Rank(name, tuple(f"{name} {i}" for i in range(n))) for name, n in CLASSES.items())


def make_checkpoints(folder: Path, config: EncoderConfig | None = None) -> None:
    """Write explanandum/ and explainer/; `config` makes another size."""
    torch.manual_seed(0)
    model = Explanandum(config or EncoderConfig(), list(CLASSES.values())).eval()
    decide(model)
    save_explanandum(model.eval(), RANKS, folder / "explanandum", {"recipe": "random weights, seed 0"})
    explainer = Explainer(ExplainerConfig(num_classes=sum(CLASSES.values())))
    save_explainer(explainer.eval(), folder / "explainer", {"recipe": "random weights, seed 0"})


def decide(model: Explanandum, deviation: float = 2.0) -> None:
    """Scale and shift the random heads so that reads differ in their calls, and calls are not all but tied."""
    ids = torch.randint(6, 4102, (48, 100), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 3
    with torch.no_grad():
        pooled = model.pool(model.encoder(ids), model.valid(ids), None)
        for head in model.classifiers:
            logits = head(pooled)
            scale = deviation / logits.std(dim=0)
            head.weight.mul_(scale.unsqueeze(1))
            head.bias.copy_((head.bias - logits.mean(dim=0)) * scale)


def write_reads(path: Path, n: int, read_bp: int = READ_BP) -> list[str]:
    """Write n random reads as FASTQ.gz and return them."""
    letters = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", np.uint8), (n, read_bp))
    texts = [row.tobytes().decode() for row in letters]
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(f"@read{i}\n{text}\n+\n{'I' * read_bp}\n" for i, text in enumerate(texts))
    return texts
