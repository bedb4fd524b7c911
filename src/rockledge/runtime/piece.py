"""What a request gives back: pieces of text with their tokens, scores of given tokens, and timings."""

import time
from dataclasses import dataclass
from typing import Literal

from rockledge.runtime.sampling import TokenLogprob


@dataclass(frozen=True)
class Piece:
    """Text that became certain, and the tokens drawn since the piece before.

    `ids` leaves out the end-of-text token; tokens of a stop string are in it although their text is not.
    `logprobs` and `top` (best first) run along `ids`, None unless asked for. `finish` is set in the last
    piece: "stop" for an end-of-text token or a stop string, "length" for max_tokens or a full context.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    top: tuple[tuple[TokenLogprob, ...], ...] | None
    finish: Literal["stop", "length", "cancelled", "deadline"] | None


@dataclass(frozen=True)
class Score:
    """A given token, its log probability after the tokens before it, and the most probable ones there."""

    id: int
    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class RequestStats:
    """Work of the last request, without the time its pieces waited to be taken.

    Decode counts the steps after the prompt: the first token of an answer comes with the prompt's last step.
    """

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    cached_tokens: int = 0

    @property
    def prefill_tok_s(self) -> float:
        """Prompt tokens per second, 0 when nothing ran."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tok_s(self) -> float:
        """Decoded tokens per second, 0 when nothing ran."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


class Meter:
    """Counts the work of one request while it runs."""

    def __init__(self) -> None:
        self._tokens = self._steps = 0
        self._prefill = self._decode = 0.0
        self._mark = time.perf_counter()

    def stats(self) -> RequestStats:
        """What has been counted so far."""
        return RequestStats(self._tokens, self._prefill, self._steps, self._decode)

    def prefilled(self, tokens: int) -> RequestStats:
        """`tokens` more of the prompt are done."""
        self._tokens += tokens
        self._prefill += self._lap()
        return self.stats()

    def decoded(self) -> None:
        """One more step after the prompt is done."""
        self._steps += 1

    def pause(self) -> RequestStats:
        """Decode time runs no longer, until `resume`."""
        self._decode += self._lap()
        return self.stats()

    def resume(self) -> None:
        """Decode time runs again."""
        self._mark = time.perf_counter()

    def _lap(self) -> float:
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before
