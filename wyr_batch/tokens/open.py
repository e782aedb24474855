"""The tokenizer of a bundle."""

from __future__ import annotations

from wyr_batch.bundle import Bundle
from wyr_batch.tokens.kmers import KmerTokenizer
from wyr_batch.tokens.tokens import Tokenizer


def open_tokenizer(bundle: Bundle) -> Tokenizer:
    """Return what makes tokens for a bundle's model. Raises: ModelError, MissingExtraError."""
    if not bundle.vocabulary.file:
        return KmerTokenizer()
    from wyr_batch.tokens.subwords import SubwordTokenizer  # needs an extra

    return SubwordTokenizer(bundle.tokenizer_file(), bundle.vocabulary, bundle.input)
