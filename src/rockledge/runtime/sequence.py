"""A request on its way: its tokens, how many of them are in the cache, and what has come of it."""

import time
from collections import deque

import numpy as np
import numpy.typing as npt

from rockledge.runtime.answer import Answer
from rockledge.runtime.constraints.grammar import GrammarMatcher
from rockledge.runtime.drawing import Drawing
from rockledge.runtime.embedding import MeanState
from rockledge.runtime.kv_cache import CachedSequence
from rockledge.runtime.piece import Finish, RequestStats, Score
from rockledge.runtime.prefix import Name
from rockledge.runtime.request import Output, Request

Int32 = npt.NDArray[np.int32]

FORCED_ROWS = 16
"""Tokens that a grammar forces come in one step with those of other answers; of more the rest waits its turn
as a prompt does."""


class Sequence:
    """Tokens that are read and, for "generate", drawn one by one or forced by a grammar.

    `cached` is None while it waits. Everything up to its length is in the cache; what is not yet is
    `pending`: the rest of a prompt, or the token drawn last. A sequence that lost its pages has all of its
    tokens pending.
    """

    def __init__(
        self, request: Request, number: int, room: int, answer: Answer | None, drawing: Drawing | None
    ) -> None:
        """`number`: rises from request to request. `room`: tokens that will be drawn at most."""
        self.request = request
        self.number = number
        self.room = room
        self.answer = answer
        self.drawing = drawing
        self.count = len(request.prompt)
        self._tokens = np.empty(self.count + max(room, 1), np.int32)
        self._tokens[: self.count] = request.prompt
        # Tokens whose scores are known or not wanted. Of the others the row before each is scored.
        self.told = 1 if request.kind == "score" else self.count
        self.matcher: GrammarMatcher | None = None  # of a constraint, once it is compiled
        self.closing: Finish | None = None  # how it ends when all tokens are told: no more are drawn
        self.names: list[Name] = []
        self.kept = 0  # full pages that the prefix cache has been told of
        self.findable = request.kind != "score"  # whether its pages may be found again
        self.cached: CachedSequence | None = None
        self.slot = -1  # its row in the block tables of a step
        self.moved = False  # its block table has to be written anew
        self.busy = False  # it is in a step that runs in another thread
        self.ended: Finish | None = None  # "cancelled" or "deadline": to be taken out
        self.scores: list[Score] = []
        self.mean: MeanState | None = None  # of an embedding that is made of the states after all tokens
        self.arrived = time.monotonic()
        self.drawn_at: float | None = None  # when its last token was drawn
        self._prefill_tokens = self._decode_tokens = self._cached_tokens = 0
        self._prefill_seconds = self._decode_seconds = self._waited_seconds = 0.0
        self.inbox: deque[Output] | None = None  # where its outputs go, if not to whoever steps

    @property
    def tokens(self) -> Int32:
        """Prompt, and what was drawn so far."""
        return self._tokens[: self.count]

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return 0 if self.cached is None else self.cached.length

    @property
    def wanted(self) -> int:
        """Tokens that have to be in the cache sooner or later: not the last one where nothing is drawn after
        it."""
        return self.count if self.draws else self.count - 1

    @property
    def draws(self) -> bool:
        """Whether something is wanted after the last token: the next one, or the state there."""
        return self.request.kind != "score" and self.closing is None

    def logit_rows(self, rows: int) -> int:
        """How many of its next `rows` rows are drawn from, scored, or give a state."""
        if self.mean is not None:
            return rows
        return max(0, self.length + rows - max(self.told - 1, self.length))

    @property
    def read_whole(self) -> bool:
        """Whether something comes of every token, so that none can be taken from the cache."""
        return self.request.kind == "score" or self.mean is not None

    @property
    def ready(self) -> bool:
        """Whether it can be worked on: a constraint has to be compiled first."""
        return self.request.constraint is None or self.matcher is not None

    @property
    def pending(self) -> int:
        """Tokens that are still to be computed."""
        return self.wanted - self.length

    @property
    def decoding(self) -> bool:
        """Whether its next step is one row after the prompt, or a few with those that a grammar forces."""
        prompt = len(self.request.prompt)
        if self.cached is None or self.count == prompt:
            return False
        if self.matcher is None:
            return self.pending == 1
        return self.length >= prompt and self.pending <= FORCED_ROWS

    @property
    def growing(self) -> bool:
        """Whether its answer may need more room in the cache than it has."""
        longest = len(self.request.prompt) + max(self.room - 1, 0)
        return self.cached is not None and self.cached.capacity < longest

    @property
    def overdue(self) -> bool:
        """Whether its deadline has passed."""
        deadline = self.request.deadline_s
        return deadline is not None and time.monotonic() - self.arrived > deadline

    def admitted(self, cached: int) -> None:
        """It has pages from now on, `cached` of its tokens in them already."""
        if self._prefill_tokens == 0:  # not after it had lost its pages
            self._cached_tokens = cached
            self._waited_seconds = time.monotonic() - self.arrived

    def worked(self, rows: int, seconds: float, decoding: bool) -> None:
        """A step of `seconds` had `rows` of its tokens."""
        if decoding:
            self._decode_tokens += rows
            self._decode_seconds += seconds
        else:
            self._prefill_tokens += rows
            self._prefill_seconds += seconds

    @property
    def stats(self) -> RequestStats:
        """The work so far."""
        return RequestStats(
            prefill_tokens=self._prefill_tokens,
            prefill_seconds=self._prefill_seconds,
            decode_tokens=self._decode_tokens,
            decode_seconds=self._decode_seconds,
            cached_tokens=self._cached_tokens,
            waited_seconds=self._waited_seconds,
        )

    def append(self, token: int, *, told: bool = True) -> None:
        """A token that was drawn or forced, and is pending now."""
        self._tokens[self.count] = token
        self.count += 1
        self.told += told

    def lengthen(self, tokens: int) -> None:
        """Makes its past `tokens` long by copies of what is in the cache: for measurements, where a past must
        be long but not meaningful."""
        assert self.cached is not None
        more = tokens - self.cached.length
        if more <= 0:
            return
        last = self._tokens[self.cached.length : self.count].copy()
        past = np.resize(self._tokens[: self.cached.length], tokens)
        free = np.empty(self._tokens.size - self.count, np.int32)
        self._tokens = np.concatenate([past, last, free])
        self.count += more
        self.told += more
        self.findable = False
        self.cached.repeat(tokens)
        self.moved = True

    def close(self) -> None:
        """Gives its pages back; everything is pending again, and scored again."""
        self.scores.clear()
        if self.mean is not None:
            self.mean.clear()
        if self.cached is not None:
            self.cached.close()
        self.cached, self.slot = None, -1
