"""What a folder's tokenizer is: a tokenizer.json for the package `tokenizers`, and the special tokens it puts around.

Everything is asked of transformers' own tokenizer, for only that knows what the files of a folder amount to; which
special tokens go where is found by trying. A tokenizer whose ids cannot be told from padding is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wyr_batch.checks.files import exists, shown_path
from wyr_batch.errors import MissingExtraError, ModelError
from wyr_batch.models.families.quiet import quiet_transformers, reason_given
from wyr_batch.vocabulary import Vocabulary

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spm.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
# Two texts that every vocabulary has tokens for, be they unknown ones.
_FIRST, _SECOND = "ACGTACGT", "TTGACA"


@dataclass(frozen=True)
class TokenizerInfo:
    """A tokenizer and the special tokens around its tokens.

    Attributes:
        json: text of tokenizer.json.
        size: of its vocabulary, added tokens counted.
        prefix, suffix: special ids around every text or pair.
        between: special ids between the texts of a pair; None: it makes no pairs.
        pair_types: the second text of a pair has token type 1.
        pad_id: of padding.
        files: the files it was made from, by name.
    """

    json: str
    size: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    between: tuple[int, ...] | None
    pair_types: bool
    pad_id: int
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Every special id, each once."""
        return tuple(dict.fromkeys((*self.prefix, *self.suffix, *(self.between or ()))))

    def vocabulary(self, vocab_size: int, file: str = "tokenizer.json") -> Vocabulary:
        """Return what bundle.json says of the tokens.

        Args:
            vocab_size: ids that the model takes.
            file: where `json` lies in the bundle.
        """
        drawn = 0, min(vocab_size, self.size)
        return Vocabulary(vocab_size, self.prefix, self.suffix, self.between, self.pad_id, drawn, file)


def describe_tokenizer(folder: Path, pad_id: int | None = None) -> TokenizerInfo:
    """Return what the tokenizer of a folder is.

    Args:
        folder: with tokenizer.json, or the files of a tokenizer that transformers can turn into one.
        pad_id: of padding, where the tokenizer names none.
    Raises: ModelError; MissingExtraError without transformers.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError(f"the tokenizer of {shown_path(folder)}", "transformers", "train") from None
    shown = shown_path(folder)
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if exists(folder / name, ModelError)}
    if not files:
        raise ModelError(
            shown, "no tokenizer", "tokenizer.json beside config.json", "Save the tokenizer there as well."
        )
    try:
        with quiet_transformers():
            made: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            backend = made.backend_tokenizer if made.is_fast else _of_proteins(made)
    except Exception as error:  # of which there are many, from packages that are not there to damaged files
        raise ModelError(
            shown,
            f"'{reason_given(error)}'",
            "a tokenizer that transformers loads without code of the model's",
            "Save it again.",
        ) from None
    if backend is None:
        raise ModelError(shown, f"a tokenizer of type {type(made).__name__}", "one with a tokenizer.json")
    pad_id = pad_id if made.pad_token_id is None else made.pad_token_id
    backend.no_truncation()
    backend.no_padding()
    prefix, suffix, between, types = _around(backend)
    info = TokenizerInfo(
        json=backend.to_str(),
        size=backend.get_vocab_size(with_added_tokens=True),
        prefix=prefix,
        suffix=suffix,
        between=between,
        pair_types=types and "token_type_ids" in made.model_input_names,
        pad_id=-1 if pad_id is None else pad_id,
        files=files,
    )
    taken = {*info.special_ids, *({made.unk_token_id} - {None})}
    if pad_id is None or pad_id in taken:
        got = "no token for padding" if pad_id is None else f"token {pad_id} for padding, which means something else"
        raise ModelError(
            shown, got, "a token of its own for padding", "Name one as pad_token in tokenizer_config.json."
        )
    return info


def _around(backend: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, bool]:
    """Return which ids a tokenizer puts before, after and between texts, and whether it tells their types apart."""
    first, second = (backend.encode(text, add_special_tokens=False).ids for text in (_FIRST, _SECOND))
    single = backend.encode(_FIRST).ids
    at = _find(first, single)
    prefix, suffix = tuple(single[:at]), tuple(single[at + len(first) :])
    pair = backend.encode(_FIRST, _SECOND)
    start, end = len(prefix) + len(first), len(pair.ids) - len(suffix) - len(second)
    expected = [*prefix, *first, *pair.ids[start:end], *second, *suffix]
    if end <= start or pair.ids != expected:
        return prefix, suffix, None, False
    types = set(pair.type_ids[:end]) == {0} and set(pair.type_ids[end:]) == {1}
    return prefix, suffix, tuple(pair.ids[start:end]), types


def _find(part: Sequence[int], whole: Sequence[int]) -> int:
    """Return where a run of ids stands in another."""
    return next(at for at in range(len(whole)) if list(whole[at : at + len(part)]) == list(part))


def _of_proteins(made: Any) -> Any:
    """Return ESM's tokenizer, which transformers has in Python alone, as one of `tokenizers`; None of another kind.

    It cuts a text at every token of the vocabulary, the longest first, and what is left at white space; a run that
    is no token is one unknown token.
    """
    if type(made).__name__ != "EsmTokenizer":
        return None
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    words: list[str] = list(made.all_tokens)
    backend = Tokenizer(models.WordLevel(dict(zip(words, range(len(words)), strict=True)), unk_token=made.unk_token))
    pattern = "|".join(_escaped(word) for word in sorted(words, key=len, reverse=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.WhitespaceSplit()]
    )
    start, end = made.cls_token, made.eos_token
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}" if end else f"{start} $A",
        pair=f"{start} $A {end} $B {end}" if end else None,
        special_tokens=[(word, made.convert_tokens_to_ids(word)) for word in (start, end) if word],
    )
    return backend


def _escaped(word: str) -> str:
    """Return a regular expression of a word, every character of which stands for itself."""
    return "".join(letter if letter.isalnum() else f"\\x{{{ord(letter):x}}}" for letter in word)


def check_vocabulary(info: TokenizerInfo, vocab_size: int, folder: Path) -> None:
    """Raise ModelError if the special tokens of a folder's tokenizer are none of its model's."""
    largest = max(info.pad_id, *info.special_ids, 0)
    if largest >= vocab_size:
        got = f"a tokenizer with the special token {largest}"
        raise ModelError(shown_path(folder), got, f"one below {vocab_size}, as of the model", "Are they of one model?")
