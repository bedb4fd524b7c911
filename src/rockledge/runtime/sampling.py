"""How the next token is drawn, and what its probability was."""

import math
import secrets
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError

_MOST = 2**31 - 1  # the core takes top_k as a signed 32-bit number


@dataclass(frozen=True)
class Sampling:
    """Settings of one request. The defaults are greedy; 0 turns top_k and min_p off, 1 turns top_p off.

    `temperature` <= 0 takes the most probable token. The same `seed` gives the same text again; None draws
    a fresh seed for each request. Order: temperature, top_k, min_p, top_p.
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

    def seed_or_fresh(self) -> int:
        """The seed of this request as an unsigned 64-bit number."""
        return secrets.randbits(64) if self.seed is None else self.seed & 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability under the model, before any sampling filter."""

    id: int
    logprob: float


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """log softmax over the last axis of logits fp32 [..., vocab], as float64 of the same shape."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def most_probable(logprobs: npt.NDArray[np.float64], count: int) -> tuple[TokenLogprob, ...]:
    """The `count` most probable tokens of logprobs [vocab], best first, ties by rising id."""
    count = min(count, logprobs.shape[0])
    if count == 0:
        return ()
    # All that tie with the last place are candidates: the choice must not depend on the partition.
    threshold = np.partition(logprobs, -count)[-count]
    candidates = np.flatnonzero(logprobs >= threshold)
    order = np.lexsort((candidates, -logprobs[candidates]))[:count]
    return tuple(TokenLogprob(int(i), float(logprobs[i])) for i in candidates[order])
