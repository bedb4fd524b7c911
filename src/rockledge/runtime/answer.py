"""The text of one answer as its tokens arrive: decoded, cut at stop strings, scored where asked."""

from collections.abc import Collection, Sequence

from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.piece import Finish, Piece
from rockledge.runtime.sampling import TokenLogprob
from rockledge.runtime.stops import StopMatcher


class Answer:
    """Collects tokens until some text is certain. `scored`: whether pieces have log probabilities; `shown`:
    special tokens that are part of the text."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], scored: bool, shown: Collection[int] = ()
    ) -> None:
        self._decoder = tokenizer.stream(shown)
        self._stops = StopMatcher(stop)
        self._scored = scored
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[tuple[TokenLogprob, ...]] = []

    def push(self, token: int, logprob: float, top: tuple[TokenLogprob, ...]) -> Piece | None:
        """Adds `token` with its scores, where those are asked for; a piece when text became certain or it
        ended."""
        self._ids.append(token)
        if self._scored:
            self._logprobs.append(logprob)
            self._top.append(top)
        shown, found = self._stops.push(self._decoder.push(token))
        if found:
            return self._piece(shown, "stop")
        return self._piece(shown, None) if shown else None

    def last(self, finish: Finish) -> Piece:
        """The last piece, with all that was held back: no more tokens come."""
        shown, found = self._stops.push(self._decoder.flush())
        if found:
            return self._piece(shown, "stop")
        return self._piece(shown + self._stops.flush(), finish)

    def _piece(self, text: str, finish: Finish | None) -> Piece:
        scored = self._scored
        piece = Piece(
            text,
            tuple(self._ids),
            tuple(self._logprobs) if scored else None,
            tuple(self._top) if scored else None,
            finish,
            self._stops.found,
        )
        self._ids, self._logprobs, self._top = [], [], []
        return piece
