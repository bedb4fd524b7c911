"""Which messages a conversation goes without that does not fit: its oldest turns.

A turn is a message of the user and all that follows until the next one, so calls keep their results and roles
alternate as they did. System text stays wherever it stands, and so does the last turn.

A client sends the same conversation again with a turn more. Were just enough dropped each time, the prompt
would begin elsewhere each time, and nothing of it would be found in the cache. Therefore turns are dropped in
blocks, counted from the beginning of the conversation: what is dropped stays the same until a block is full.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rockledge.serve.conversation.messages import Message
from rockledge.serve.errors import ApiError

BLOCKS = 2
"""What is left for turns beside system text and tools is so many blocks. Whenever one is full the other is
read again, which costs as much as reading all once more; of smaller ones three fourths would be, more often.
llama.cpp drops half too when a context is full (tools/server)."""

ANSWER_SHARE = 4
"""Of a context, one in so many tokens is kept for an answer whose length is not asked for."""

CHARACTERS = 16
"""Of a token, more than text takes. A conversation with more is measured before any of it is rendered."""

SYSTEM_ROLES = ("system", "developer")

_SAID = {role: Message.model_validate({"role": role, "content": "a"}) for role in ("user", "assistant")}


@dataclass(frozen=True)
class Fitted:
    """The rendered prompt, its token ids, and how many messages it goes without."""

    text: str
    ids: list[int]
    dropped: int


def prompt_room(context: int, answer: int | None) -> int:
    """Tokens that a prompt may have beside an answer of `answer` tokens (None: of any length), which gets
    half of the context at most."""
    kept = context // ANSWER_SHARE if answer is None else min(answer, context // 2)
    return context - max(kept, 1)


def fit(
    messages: Sequence[Message],
    render: Callable[[list[Message]], tuple[str, list[int]]],
    measure: Callable[[str], int],
    room: int,
    besides: str = "",
) -> Fitted:
    """The prompt of as many of the messages as fit in `room` tokens; of the last turn if not even that does.

    `render` gives a prompt and its token ids; `measure` about how many tokens a text has, always the same
    for the same text; `besides` is what prompts hold besides messages. Renderings are few (the logarithm of
    the number of blocks, at most), and none but the first is much longer than what is kept.

    Raises:
        ApiError: what `render` raises, except for prompts too long.
    """
    return _Fitting(messages, render, measure, room, besides).find()


class _Fitting:
    def __init__(
        self,
        messages: Sequence[Message],
        render: Callable[[list[Message]], tuple[str, list[int]]],
        measure: Callable[[str], int],
        room: int,
        besides: str,
    ) -> None:
        self._messages, self._besides = messages, besides
        self._render, self._measure, self._room = render, measure, room
        self._last = 0
        """The number of places where a prompt may begin, less one."""
        self._places: list[int] = [0]
        """Where it may begin: numbers of messages; those before are dropped, except system text."""
        self._tried: dict[int, Fitted | None] = {}

    def find(self) -> Fitted:
        length = len(self._besides) + sum(len(_text(message)) for message in self._messages)
        if length <= CHARACTERS * self._room and (whole := self._fitted(0)) is not None:
            return whole
        guess = self._measured()
        if not self._last:
            return self._rendered(0)
        low, high = self._around(guess)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fitted(middle) else (middle, high)
        return self._fitted(high) or self._rendered(high)

    def _measured(self) -> int:
        """Finds the places; gives the number of the first from which on it should fit."""
        turns = _turns(self._messages)
        fixed = self._measure(self._besides)
        markup = self._markup()
        sizes = []
        for start, end in zip(turns, [*turns[1:], len(self._messages)], strict=True):
            texts: dict[bool, list[str]] = {True: [], False: []}
            for message in self._messages[start:end]:
                texts[message.role in SYSTEM_ROLES].append(_text(message))
            fixed += self._measure("".join(texts[True])) + markup * len(texts[True])
            sizes.append(self._measure("".join(texts[False])) + markup * len(texts[False]))
        block, before, left = max((self._room - fixed) // BLOCKS, 1), 0, sum(sizes)
        places, lefts = [0], [left]
        for number in range(1, len(turns)):
            before += sizes[number - 1]
            full = before // block > (before - sizes[number - 1]) // block
            if full or number == len(turns) - 1:
                places.append(turns[number])
                lefts.append(left - before)
        self._places, self._last = places, len(places) - 1
        return next((i for i, size in enumerate(lefts) if fixed + size <= self._room), self._last)

    def _markup(self) -> int:
        """Tokens that a message has besides its text: always the same for the same template."""
        turn = [_SAID["user"], _SAID["assistant"]]
        try:
            few, more = (len(self._render([*turn * count, _SAID["user"]])[1]) for count in (1, 3))
        except ApiError:
            return 0  # it is the real conversation that says what is wrong
        return max((more - few) // 4 - self._measure("a"), 0)

    def _around(self, guess: int) -> tuple[int, int]:
        """The numbers of a place from which on it does not fit (-1: none is known) and of a later one from
        which on it does, or of the last."""
        step = 1
        if self._fitted(guess):
            high = guess
            while high and self._fitted(max(high - step, 0)):
                high, step = max(high - step, 0), 2 * step
            return max(high - step, 0) if high else -1, high
        low = guess
        while low < self._last and not self._fitted(min(low + step, self._last)):
            low, step = min(low + step, self._last), 2 * step
        return min(low, self._last - 1), min(low + step, self._last)

    def _fitted(self, number: int) -> Fitted | None:
        """The prompt from a place on; None if it is too long."""
        if number not in self._tried:
            self._tried[number] = self._attempt(number)
        return self._tried[number]

    def _attempt(self, number: int) -> Fitted | None:
        try:
            found = self._rendered(number)
        except ApiError as error:
            if error.code != "context_length_exceeded":
                raise
            return None
        return found if len(found.ids) <= self._room else None

    def _rendered(self, number: int) -> Fitted:
        start = self._places[number]
        kept = [m for i, m in enumerate(self._messages) if i >= start or m.role in SYSTEM_ROLES]
        return Fitted(*self._render(kept), len(self._messages) - len(kept))


def _turns(messages: Sequence[Message]) -> list[int]:
    """Where turns begin. What is before the first message of the user belongs to the first, unless somebody
    else has spoken; and a message of the user between calls and their results begins none."""
    begin, results = set(), False
    for number in reversed(range(len(messages))):
        message = messages[number]
        results = (results or message.role == "tool") and not message.tool_calls
        if message.role == "user" and not results:
            begin.add(number)
    spoken = next((i for i, m in enumerate(messages) if m.role not in SYSTEM_ROLES), len(messages))
    return [0, *(number for number in sorted(begin) if number > spoken)]


def _text(message: Message) -> str:
    """All that a message says."""
    calls = [json.dumps([call.function.name, call.function.arguments]) for call in message.tool_calls]
    return "".join((message.content or "", *calls))
