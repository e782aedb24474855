"""Base of the families whose tokens a tokenizer.json makes, with special tokens around them."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.families.tokenizer import TokenizerInfo
from wyr_batch.vocabulary import Vocabulary

# Where a text without a separator has its first one.
NOWHERE = 2**30


class Tokenised(Explanandum):
    """Special tokens stand around every window and between the texts of a pair; their mask is always 1.

    Attributes:
        tokenizer: what makes its tokens.
    """

    tokenizer: TokenizerInfo

    def use_tokenizer(self, tokenizer: TokenizerInfo) -> None:
        """Take special and padding ids from a tokenizer."""
        self.tokenizer, self.pad_id = tokenizer, tokenizer.pad_id

    @property
    def vocabulary(self) -> Vocabulary:
        """What bundle.json says of the tokens."""
        return self.tokenizer.vocabulary(self.vocab_size)

    def special(self, input_ids: Tensor) -> Tensor | None:
        ids = self.tokenizer.special_ids
        if not ids:
            return None
        return reduce(torch.logical_or, (input_ids == one for one in ids))

    def token_types(self, input_ids: Tensor) -> Tensor:
        """Return int64 [B, T]: 0 up to the separator of a pair, that included, and 1 after it.

        All 0 where the tokenizer tells the texts of a pair no types. What stands at padding means nothing.
        """
        between = self.tokenizer.between
        if not between or not self.tokenizer.pair_types:
            return torch.zeros_like(input_ids, dtype=torch.int64)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        separators = torch.where(input_ids == between[0], places, NOWHERE)
        last = separators.amin(dim=1, keepdim=True) + len(between) - 1
        return (places > last).to(torch.int64)

    def positions(self, input_ids: Tensor, first: int = 0) -> Tensor:
        """Return the place of each token, counted from `first`, int64 [1, T]."""
        return torch.arange(first, first + input_ids.shape[1], device=input_ids.device).unsqueeze(0)

    def compile_encoder(self) -> None:
        self.encode = torch.compile(self.encode, dynamic=True)  # type: ignore[method-assign]
