"""What all models read: sequences of tokens side by side, padded at their ends to one length.

Attention is causal, so padding changes nothing before it; and one length for all means that rotary embeddings
which depend on the longest sequence are the same in every model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """`sequences` of tokens, each beginning at position 0; `prompts` are how many of them each was given.
    They are padded to at least `least` tokens."""

    sequences: tuple[tuple[int, ...], ...]
    prompts: tuple[int, ...]
    least: int = 0

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], least: int = 0) -> "Text":
        """Prompts with the answers that a model gave to them."""
        joined = tuple((*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True))
        return cls(joined, tuple(len(prompt) for prompt in prompts), least)

    @property
    def length(self) -> int:
        """Tokens of each padded sequence."""
        return max(self.least, *map(len, self.sequences))

    @cached_property
    def padded(self) -> tuple[tuple[int, ...], ...]:
        """The sequences, all of one length."""
        return tuple((*one, *(0,) * (self.length - len(one))) for one in self.sequences)

    @cached_property
    def tokens(self) -> Tensor:
        """int64 [sequences, length]."""
        return torch.tensor(self.padded)

    @cached_property
    def _real(self) -> Tensor:
        lengths = torch.tensor([len(one) for one in self.sequences])
        return torch.arange(self.length) < lengths[:, None]

    def rows(self, x: Tensor) -> Tensor:
        """[tokens, ...] of [sequences, length, ...]: without the padding, one sequence after the other."""
        return x[self._real]

    def parts(self) -> Iterator[slice]:
        """Where each sequence lies among all tokens."""
        first = 0
        for sequence in self.sequences:
            yield slice(first, first + len(sequence))
            first += len(sequence)
