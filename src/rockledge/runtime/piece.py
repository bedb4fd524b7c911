"""What a request gives back: pieces of text with their tokens, scores of given tokens, and timings."""

from dataclasses import dataclass
from typing import Literal

from rockledge.runtime.sampling import TokenLogprob

Finish = Literal["stop", "length", "cancelled", "deadline"]


@dataclass(frozen=True)
class Piece:
    """Text that became certain, and the tokens drawn since the piece before.

    `ids` leaves out the token that ended the answer; tokens of a stop string are in it although their text
    is not. `logprobs` and `top` (best first) run along `ids`, None unless asked for. `finish` is set in the
    last piece: "stop" for an end-of-text token or a stop string, "length" for max_tokens or a full context,
    "cancelled" and "deadline" where it was ended from outside. `stop` is the stop string that ended it, None
    for any other end.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    top: tuple[tuple[TokenLogprob, ...], ...] | None
    finish: Finish | None
    stop: str | None = None


@dataclass(frozen=True)
class Score:
    """A given token, its log probability after the tokens before it, and the most probable ones there."""

    id: int
    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class RequestStats:
    """The work of one request so far. `prefill_tokens` were read, `cached_tokens` found in the cache instead.

    Seconds are those of the steps that it took part in, without the time its pieces waited to be taken;
    `waited_seconds` is from its arrival to its first step. Decode counts the steps after the prompt: the
    first token of an answer comes with the prompt's last step.
    """

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    cached_tokens: int = 0
    waited_seconds: float = 0.0

    @property
    def prefill_tok_s(self) -> float:
        """Prompt tokens per second, 0 when nothing ran."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tok_s(self) -> float:
        """Decoded tokens per second, 0 when nothing ran."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0
