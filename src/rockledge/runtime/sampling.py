"""How the next token is drawn, and what its probability was."""

import math
import secrets
from dataclasses import dataclass

from rockledge.errors import UsageError

BANNED = -100.0
"""A logit bias of so much or less means that the token cannot be drawn, as OpenAI's documentation has it."""

_MOST = 2**31 - 1  # the core takes top_k and token ids as signed 32-bit numbers
_LARGEST = 3.4028234e38  # and penalties and biases as single precision


@dataclass(frozen=True)
class Sampling:
    """Settings of one request. The defaults are greedy and turn everything else off.

    `temperature` <= 0 takes the most probable token. The same `seed` gives the same text again; None draws
    a fresh seed for each request. `top_k` and `min_p` are off at 0, `top_p` at 1.
    `logit_bias`: pairs of a token and what is added to its logit; -100 or less bans it.
    `repetition_penalty` (off at 1) divides positive logits of tokens in prompt or answer, multiplies others;
    `presence_penalty` and `frequency_penalty` (off at 0) are subtracted for tokens of the answer, the second
    times their count. `min_tokens`: until so many are drawn, nothing that ends the answer can be. `stop_ids`:
    tokens that end it besides the model's own.
    Order: bias, penalties, temperature, top_k, min_p, top_p.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature):
            raise UsageError(f"temperature is {self.temperature}; give a finite number, 0 for greedy")
        if not 0 <= self.top_k <= _MOST:
            raise UsageError(f"top_k is {self.top_k}; give 0 (off) or a positive number of tokens")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p is {self.top_p}; give a number above 0 and at most 1 (1 turns it off)")
        if not 0.0 <= self.min_p <= 1.0:
            raise UsageError(f"min_p is {self.min_p}; give a number from 0 (off) to 1")
        if not 0.0 < self.repetition_penalty <= _LARGEST:
            raise UsageError(
                f"repetition_penalty is {self.repetition_penalty}; give a number above 0 (1 turns it off)"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not abs(value) <= _LARGEST:
                raise UsageError(f"{name} is {value}; give a finite number (0 turns it off)")
        if self.min_tokens < 0:
            raise UsageError(f"min_tokens is {self.min_tokens}; give 0 (off) or a number of tokens")
        for token, add in self.logit_bias:
            if not add <= _LARGEST:
                raise UsageError(
                    f"logit_bias of token {token} is {add}; give a number, -100 to ban the token"
                )
        for token in self._named:
            if not 0 <= token <= _MOST:
                raise UsageError(f"logit_bias or stop_ids name token {token}; token ids are 0 or more")

    @property
    def penalised(self) -> bool:
        """Whether what was drawn or read before changes the logits."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def _named(self) -> list[int]:
        return [*(token for token, _ in self.logit_bias), *self.stop_ids]

    def check_tokens(self, vocab: int) -> None:
        """UsageError where `logit_bias` or `stop_ids` name a token that a model of `vocab` tokens lacks."""
        for token in self._named:
            if token >= vocab:
                raise UsageError(
                    f"logit_bias or stop_ids name token {token}; this model has tokens 0 to {vocab - 1}"
                )

    def seed_or_fresh(self) -> int:
        """The seed of this request as an unsigned 64-bit number."""
        return secrets.randbits(64) if self.seed is None else self.seed & 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability under the model, before any sampling filter."""

    id: int
    logprob: float
