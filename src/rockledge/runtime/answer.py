"""The text of one answer as its tokens arrive: decoded, cut at stop strings, scored where asked."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rockledge.model.tokenizer import StreamDecoder, Tokenizer
from rockledge.runtime.piece import Piece
from rockledge.runtime.sampling import TokenLogprob, log_probabilities, most_probable
from rockledge.runtime.stops import StopMatcher


class Answer:
    """Collects tokens until some text is certain. `logprobs`: alternatives a token, None for no scores."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], logprobs: int | None) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = StopMatcher(stop)
        self._alternatives = logprobs
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[tuple[TokenLogprob, ...]] = []

    def push(self, token: int, logits: npt.NDArray[np.float32]) -> Piece | None:
        """Adds `token`, drawn from `logits` fp32 [vocab]; a piece when text became certain or it ended."""
        self._ids.append(token)
        if self._alternatives is not None:
            scores = log_probabilities(logits)
            self._logprobs.append(float(scores[token]))
            self._top.append(most_probable(scores, self._alternatives))
        shown, found = self._stops.push(self._decoder.push(token))
        if found:
            return self._piece(shown, "stop")
        return self._piece(shown, None) if shown else None

    def last(self, finish: Literal["stop", "length"]) -> Piece:
        """The last piece, with all that was held back: no more tokens come."""
        shown, found = self._stops.push(self._decoder.flush())
        if found:
            return self._piece(shown, "stop")
        return self._piece(shown + self._stops.flush(), finish)

    def _piece(self, text: str, finish: Literal["stop", "length"] | None) -> Piece:
        scored = self._alternatives is not None
        piece = Piece(
            text,
            tuple(self._ids),
            tuple(self._logprobs) if scored else None,
            tuple(self._top) if scored else None,
            finish,
        )
        self._ids, self._logprobs, self._top = [], [], []
        return piece
