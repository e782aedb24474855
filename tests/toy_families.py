"""Tiny classifiers of every family, seeded, in the folders that people have them in: made by transformers itself."""

from __future__ import annotations

import atexit
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from wyr_batch.models.checkpoints import load_explanandum
from wyr_batch.models.families.dnabert import DnabertConfig, DnabertEncoder
from wyr_batch.models.families.quiet import quiet_transformers
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.ranks import Rank

WORDS = 60
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_size": 32}
LABELS = {0: "negative", 1: "neutral", 2: "positive"}
TEXT: dict[str, Any] = {
    **SIZES,
    "vocab_size": WORDS,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "num_labels": 3,
    "id2label": LABELS,
    "label2id": {label: i for i, label in LABELS.items()},
}
BERT = (("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
ROBERTA = (("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "<s> $A </s>", "<s> $A </s> </s> $B </s>")
BOS = (("[PAD]", "[UNK]", "[SEP]", "[BOS]", "[EOS]"), "[BOS] $A", None)
AMINO_ACIDS = "LAGVSERTIDPNKQFYMHWCXBUZO.-"
ESM = ("<cls>", "<pad>", "<eos>", "<unk>", *AMINO_ACIDS, "<null_1>", "<mask>")
DEBERTA = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
DEBERTA |= {"norm_rel_ebd": "layer_norm", "layer_norm_eps": 1e-7}
RANKS = (Rank("phylum", ("Bacillota", "Pseudomonadota", "Uroviricota")), Rank("genus", ("Bacillus", "Listeria")))


class Toy(NamedTuple):
    """A family's checkpoint, and where its masks go in transformers' model.

    Attributes:
        model: as our loader gives it; reference: transformers' own, None where it has none.
        site: the module of `reference` whose output the mask scales; last: that whose output is the hidden states.
    """

    folder: Path
    model: Tokenised
    ranks: list[Rank]
    reference: Any
    site: Callable[[Any], torch.nn.Module]
    last: Callable[[Any], torch.nn.Module] | None = None


def new_folder(name: str) -> Path:
    """Return a folder that is gone when Python ends."""
    folder = Path(mkdtemp(prefix=f"{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def save_tokenizer(folder: Path, kind: tuple[tuple[str, ...], str, str | None], pairs: bool) -> None:
    """Write a tokenizer of words w5, w6, ... with special tokens around them."""
    special, single, pair = kind
    vocabulary = {word: i for i, word in enumerate((*special, *(f"w{i}" for i in range(5, WORDS))))}
    unknown = next(word for word in special if "unk" in word.lower())
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(word, vocabulary[word]) for word in special]
    )
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if pairs else [])]
    with quiet_transformers():
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=made,
            pad_token=next(word for word in special if "pad" in word.lower()),
            unk_token=unknown,
            model_input_names=names,
        ).save_pretrained(folder)


def vary(model: torch.nn.Module) -> None:
    """Make biases and norms say something."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))


@cache
def text_toy(name: str, n_layers: int = 2) -> Toy:
    """Return a classifier of texts or proteins."""
    config, model, kind, site, last = _text(name, {**TEXT, "num_hidden_layers": n_layers})
    folder = new_folder(name)
    torch.manual_seed(0)
    with quiet_transformers():
        reference = model(config)
        vary(reference)
        reference.eval().save_pretrained(folder)
    if kind is None:
        (folder / "vocab.txt").write_text("\n".join(ESM))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "EsmTokenizer"}')
    else:
        save_tokenizer(folder, kind, pairs=kind is BERT and name != "distilbert")
    loaded, ranks = load_explanandum(folder)
    assert isinstance(loaded, Tokenised)
    return Toy(folder, loaded, ranks, reference, site, last)


def _text(name: str, fields: dict[str, Any]) -> Any:
    t = transformers

    def words(model: Any) -> Any:
        return model.get_input_embeddings()

    if name in ("bert", "bert-multi"):
        many = {"problem_type": "multi_label_classification"} if name == "bert-multi" else {}
        return t.BertConfig(**fields, **many), t.BertForSequenceClassification, BERT, words, None
    if name == "roberta":
        return t.RobertaConfig(**fields), t.RobertaForSequenceClassification, ROBERTA, words, None
    if name == "xlm-roberta":
        return t.XLMRobertaConfig(**fields), t.XLMRobertaForSequenceClassification, ROBERTA, words, None
    if name == "distilbert":
        renamed = {"dim": 32, "n_layers": fields["num_hidden_layers"], "n_heads": 4, "hidden_dim": 48}
        rest = {key: value for key, value in fields.items() if key not in SIZES}
        return t.DistilBertConfig(**renamed, **rest), t.DistilBertForSequenceClassification, BERT, words, None
    if name == "electra":
        config = t.ElectraConfig(**fields, embedding_size=16)
        return config, t.ElectraForSequenceClassification, BERT, words, None
    if name == "deberta-v3":
        config = t.DebertaV2Config(**fields, **DEBERTA, position_biased_input=False, type_vocab_size=0, pad_token_id=0)
        return config, t.DebertaV2ForSequenceClassification, BERT, lambda m: m.deberta.embeddings.LayerNorm, None
    if name == "deberta-v2":
        config = t.DebertaV2Config(**fields, **DEBERTA, type_vocab_size=2, conv_kernel_size=3, pad_token_id=0)
        return config, t.DebertaV2ForSequenceClassification, BERT, words, None
    if name.startswith("modernbert"):
        special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
        config = t.ModernBertConfig(
            **fields,
            **special,
            pad_token_id=0,
            local_attention=8,
            global_attn_every_n_layers=2,
            classifier_pooling="mean" if name == "modernbert-mean" else "cls",
        )
        last = (lambda m: m.model.final_norm) if name == "modernbert-mean" else None
        return config, t.ModernBertForSequenceClassification, BERT, lambda m: m.model.embeddings.norm, last
    assert name == "esm"
    sizes = {**fields, "vocab_size": len(ESM)}
    config = t.EsmConfig(
        **sizes, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary", token_dropout=True
    )
    return config, t.EsmForSequenceClassification, None, words, None


class _Reader(torch.nn.Module):
    """The published classifier, as its training code has it: a base model, a mean over tokens, linear heads."""

    def __init__(self, base: Any, decoder: Any) -> None:
        super().__init__()
        self.base_model = base
        self.decoder = [decoder]  # not as a part: its tensors are those of `base`
        self.classifiers = torch.nn.ModuleList(torch.nn.Linear(32, len(rank.labels)) for rank in RANKS)

    def get_input_embeddings(self) -> Any:
        return self.decoder[0].get_input_embeddings()

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        hidden = self.decoder[0](input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1)
        mean = (hidden * kept).sum(dim=1) / kept.sum(dim=1)
        return torch.cat([head(mean) for head in self.classifiers], dim=-1)


@cache
def read_toy(name: str, n_layers: int = 2) -> Toy:
    """Return a classifier of reads in the published layout: dnabert, llama or mistral."""
    folder = new_folder(name)
    torch.manual_seed(0)
    layers = {**SIZES, "num_hidden_layers": n_layers}
    sizes = {**layers, "vocab_size": WORDS, "max_position_embeddings": 64, "initializer_range": 0.3}
    more = {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 4}
    base: Any
    with quiet_transformers():
        if name == "llama":
            base = transformers.LlamaModel(transformers.LlamaConfig(**sizes, **more))
            reader, config = _Reader(base, base), base.config
        elif name == "mistral":
            base = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, **more, sliding_window=5))
            reader, config = _Reader(base, base.model), base.config
        else:
            own = DnabertConfig(**{**layers, "num_attention_heads": 3, "hidden_size": 36}, vocab_size=WORDS)
            base = DnabertEncoder(own)
            reader = _Reader(base, None)
            reader.classifiers = torch.nn.ModuleList(torch.nn.Linear(36, len(rank.labels)) for rank in RANKS)
            config = None
            base.pooler = torch.nn.ModuleDict({"dense": torch.nn.Linear(36, 36)})
    vary(reader)
    for part in ("base_model", "data_processor", "model"):
        (folder / part).mkdir()
    text = own.to_json() if config is None else json.dumps(config.to_dict())
    (folder / "base_model" / "config.json").write_text(text)
    save_tokenizer(folder / "base_model", BOS if name == "mistral" else BERT, pairs=False)
    ranks = [{"name": rank.name, "labels": list(rank.labels)} for rank in RANKS]
    (folder / "data_processor" / "labels.json").write_text(json.dumps({"ranks": ranks}))
    (folder / "wyr.json").write_text(json.dumps({"pooling": "mean"}))
    tensors = {key: value.clone() for key, value in reader.state_dict().items()}
    save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    loaded, found = load_explanandum(folder)
    assert isinstance(loaded, Tokenised)
    reference = None if config is None else reader.eval()
    return Toy(folder, loaded, found, reference, lambda m: m.get_input_embeddings(), lambda m: m.decoder[0].norm)


def toy(name: str, n_layers: int = 2) -> Toy:
    """Return a tiny classifier by name."""
    return read_toy(name, n_layers) if name in READS else text_toy(name, n_layers)


READS = ("dnabert", "llama", "mistral")
TEXTS = (
    *("bert", "bert-multi", "roberta", "xlm-roberta", "distilbert", "electra"),
    *("deberta-v3", "deberta-v2", "modernbert", "modernbert-mean", "esm"),
)


def rows(model: Tokenised, lengths: tuple[int, ...], seed: int = 0, pair: bool = False) -> torch.Tensor:
    """Return seeded ids int64 [B, T] of rows of those lengths, special tokens counted; `pair`: of two texts each."""
    made, info = torch.Generator().manual_seed(seed), model.tokenizer
    taken = {*info.special_ids, info.pad_id}
    ordinary = torch.tensor([i for i in range(5, min(model.vocab_size, 30)) if i not in taken])
    ids = torch.full((len(lengths), max(lengths)), info.pad_id)
    for row, length in zip(ids, lengths, strict=True):
        n = length - len(info.prefix) - len(info.suffix)
        words = ordinary[torch.randint(len(ordinary), (n,), generator=made)].tolist()
        if pair and info.between and n > len(info.between) + 1:
            words[n // 2 : n // 2 + len(info.between)] = info.between
        row[:length] = torch.tensor([*info.prefix, *words, *info.suffix])
    return ids
