"""An answer as blocks of thoughts and of text, and calls, for APIs whose answers are made of several parts.

Streamed or not, an answer is read here part by part, so both have the same blocks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from rockledge.serve.conversation.answer_reader import AnswerReader, AnswerShape, Fragment
from rockledge.serve.conversation.call_forms import Call, new_call_id
from rockledge.serve.parts import Part, ScoredToken

Kind = Literal["thoughts", "text", "call"]


@dataclass
class Block:
    """`number`: its place in the answer. `pieces`: what there is of thoughts or text so far, with the scored
    `tokens` of text. `call`, `call_id`: of a call. `cut`: the answer ended in it for its length."""

    kind: Kind
    number: int
    pieces: list[str] = field(default_factory=list)
    tokens: list[ScoredToken] = field(default_factory=list)
    call: Call | None = None
    call_id: str = ""
    cut: bool = False

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Step:
    """What happens to a block: it is opened, grows by `text` with its `tokens`, or is closed. A call grows
    once, by all there is of it."""

    kind: Literal["open", "grow", "close"]
    block: Block
    text: str = ""
    tokens: tuple[ScoredToken, ...] = ()


class BlockReader:
    """Reads one answer."""

    def __init__(self, shape: AnswerShape) -> None:
        self._reader = AnswerReader(shape)
        self._pushed = 0
        self._waiting: deque[tuple[int, ScoredToken]] = deque()  # with where its part ends in the text
        self._open: Block | None = None
        self.blocks: list[Block] = []
        """All so far, in order."""
        self.finish: str | None = None
        """Why the answer ended; None before."""
        self.stop: str | None = None
        """The stop string that ended it, if one did."""
        self.thought_tokens = 0
        """Tokens that were drawn until the thoughts ended."""

    @property
    def called(self) -> bool:
        """Whether there are calls."""
        return self._reader.calls > 0

    def push(self, part: Part) -> list[Step]:
        """What happens with the next part of the answer."""
        thinking = self._reader.thinking
        fragments = self._reader.push(part.text)
        if thinking or self._reader.thinking or any(fragment.thoughts for fragment in fragments):
            self.thought_tokens += part.generated
        if part.finish:
            fragments += self._reader.flush()
        steps: list[Step] = []
        tokens = self._certain(part)
        last_text = max((i for i, found in enumerate(fragments) if found.text), default=-1)
        for number, fragment in enumerate(fragments):
            self._add(fragment, tokens if number == last_text else (), steps)
        if part.finish:
            self._end(part, tokens if last_text < 0 else (), steps)
        return steps

    def _certain(self, part: Part) -> tuple[ScoredToken, ...]:
        """The scored tokens whose text has become certain."""
        self._pushed += len(part.text)
        self._waiting += ((self._pushed, token) for token in part.tokens)
        known = self._pushed if part.finish else self._pushed - self._reader.held
        found = []
        while self._waiting and self._waiting[0][0] <= known:
            found.append(self._waiting.popleft()[1])
        return tuple(found)

    def _add(self, fragment: Fragment, tokens: tuple[ScoredToken, ...], steps: list[Step]) -> None:
        if fragment.thoughts:
            self._grow(self._opened("thoughts", steps), fragment.thoughts, (), steps)
        if fragment.text:
            self._grow(self._opened("text", steps), fragment.text, tokens, steps)
        for call in fragment.calls:
            self._close(steps)
            block = self._begin(Block("call", len(self.blocks), call=call, call_id=new_call_id()), steps)
            steps.append(Step("grow", block))
            self._close(steps)

    def _end(self, part: Part, tokens: tuple[ScoredToken, ...], steps: list[Step]) -> None:
        self.finish, self.stop = part.finish, part.stop
        if self._open is not None:
            if tokens and self._open.kind == "text":  # those of an end that is not shown
                self._grow(self._open, "", tokens, steps)
            self._open.cut = part.finish == "length"
        self._close(steps)

    def _opened(self, kind: Kind, steps: list[Step]) -> Block:
        """The open block, if it is of that kind; else a new one."""
        if self._open is not None and self._open.kind == kind:
            return self._open
        self._close(steps)
        return self._begin(Block(kind, len(self.blocks)), steps)

    def _begin(self, block: Block, steps: list[Step]) -> Block:
        self.blocks.append(block)
        self._open = block
        steps.append(Step("open", block))
        return block

    def _grow(self, block: Block, text: str, tokens: tuple[ScoredToken, ...], steps: list[Step]) -> None:
        block.pieces.append(text)
        block.tokens += tokens
        steps.append(Step("grow", block, text, tokens))

    def _close(self, steps: list[Step]) -> None:
        if self._open is not None:
            steps.append(Step("close", self._open))
        self._open = None
