"""Made-up texts, and a bundle for them with random weights, made where there is no network: for speed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SYLLABLES = [a + b for a in "bcdfghjklmnprstvwxyz" for b in "aeiou"]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_SIZE = 30522
LEAST_TOKENS, MEAN_TOKENS, MOST_TOKENS = 8, 25, 60  # of a text, special ones not counted


def vocabulary() -> list[str]:
    """Return word pieces of one and two syllables, at the start of a word and within it, filled up to BERT's number."""
    words = [*SYLLABLES, *(a + b for a in SYLLABLES for b in SYLLABLES)]
    pieces = [*SPECIAL, *words, *(f"##{word}" for word in words)]
    return [*pieces, *(f"[unused{i}]" for i in range(VOCABULARY_SIZE - len(pieces)))]


def made_texts(n: int, seed: int) -> list[str]:
    """Return texts of made-up words of one to four syllables, two of which are a token."""
    random = np.random.default_rng(seed)
    texts = []
    for wanted in np.clip(random.gamma(4, MEAN_TOKENS / 4, n).round(), LEAST_TOKENS, MOST_TOKENS).astype(int).tolist():
        words: list[str] = []
        while wanted > 0:
            n_syllables = int(random.integers(1, 5 if wanted > 1 else 3))
            words.append("".join(SYLLABLES[i] for i in random.integers(0, len(SYLLABLES), n_syllables)))
            wanted -= (n_syllables + 1) // 2
        texts.append(" ".join(words))
    return texts


def make_bundle(folder: Path, layers: int, width: int, heads: int, inner: int) -> None:
    """Write a bundle of checkpoints alone; `checkpoint/explanandum` is a folder that transformers loads.

    Args:
        layers, width, heads, inner: sizes of the BERT; the Explainer has its default size.
    """
    import torch
    import transformers
    from wyr_batch.export.bundle_json import bundle_json
    from wyr_batch.export.tokens import write_tokenizer

    from wyr_batch.bundle import Bundle, BundleFile, sha256_of
    from wyr_batch.models.checkpoints import load_explanandum, save_explainer
    from wyr_batch.models.families.quiet import quiet_transformers
    from wyr_batch.models.readout import ReadoutConfig, ReadoutExplainer

    torch.manual_seed(0)
    classifier = folder / "checkpoint" / "explanandum"
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = transformers.BertConfig(
        vocab_size=VOCABULARY_SIZE, **shape, intermediate_size=inner, num_labels=2, pad_token_id=0
    )
    with quiet_transformers():
        transformers.BertForSequenceClassification(config).save_pretrained(classifier)
        save_tokenizer(classifier)
    explanandum, ranks = load_explanandum(classifier)
    explainer = ReadoutExplainer(ReadoutConfig(hidden_size=width, num_ranks=1, num_classes=2, evidence_start=False))
    torch.nn.init.normal_(explainer.head.weight)  # else every mask is a half
    save_explainer(explainer, folder / "checkpoint" / "explainer", {})
    write_tokenizer(explanandum, folder)
    files = [
        BundleFile(
            path.relative_to(folder).as_posix(),
            sha256_of(path),
            "float32",
            "checkpoint" if "checkpoint" in path.relative_to(folder).parts else "tokenizer",
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    described = Bundle(
        folder=folder,
        name="texts",
        ranks=tuple(ranks),
        max_tokens=explanandum.max_tokens,
        window_bp=0,
        fixed_window_tokens=explanandum.max_tokens - explanandum.vocabulary.n_special,
        pooling=explanandum.pooling,
        files=tuple(files),
        vocabulary=explanandum.vocabulary,
        family=explanandum.family,
        input=explanandum.input,
        mask_site=explanandum.mask_site,
    )
    (folder / "bundle.json").write_text(bundle_json(described))


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of word pieces that does all that BERT's does."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = {piece: i for i, piece in enumerate(vocabulary())}
    made = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
