"""Reads an answer as it comes: thoughts, text, and calls of tools.

What is read does not depend on how the text was cut into pieces. A call is given out when it is whole, so
that one which turns out to be malformed, or was cut off, is still there as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rockledge.serve.conversation.call_forms import Call, CallForm, Tools, UnfinishedError
from rockledge.serve.conversation.reasoning import Thoughts


@dataclass(frozen=True)
class AnswerShape:
    """What an answer may hold. `thoughts`: the marks around them; `thinking`: the prompt has opened them.
    `form`: how calls of `tools` are written, None for text alone; `one_call`: nothing after the first is
    taken."""

    thoughts: Thoughts | None = None
    thinking: bool = False
    form: CallForm | None = None
    tools: Tools = field(default_factory=dict)
    one_call: bool = False


@dataclass(frozen=True)
class Fragment:
    """The next stretch of an answer, in this order."""

    thoughts: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.thoughts or self.text or self.calls)


class AnswerReader:
    """One answer. The fragments that `push` and `flush` return, joined, are all of it."""

    def __init__(self, shape: AnswerShape) -> None:
        self._shape = shape
        self._held = ""
        self._read = self._begin if shape.thoughts is not None and not shape.thinking else self._text
        if shape.thinking:
            self._read = self._think
        self._trim = shape.thinking  # white space that comes next belongs to the marks
        self._blank = True  # nothing but white space came since the beginning or the last call
        self._opening = ""  # what began the call that is held
        self._looked = 0  # how far it was searched for the end of the call
        self.calls = 0
        """Calls so far."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next are thoughts, as far as is known."""
        return self._read == self._think

    @property
    def held(self) -> int:
        """Characters at the end of what was pushed that it is not certain of yet."""
        return len(self._held) + (len(self._opening) if self._read == self._call else 0)

    def push(self, text: str) -> list[Fragment]:
        """What became certain with `text`."""
        self._held += text
        return self._advance(last=False)

    def flush(self) -> list[Fragment]:
        """What is left when no more text comes."""
        return self._advance(last=True)

    def _advance(self, last: bool) -> list[Fragment]:
        found: list[Fragment] = []
        while True:
            state, held = self._read, self._held
            fragment = self._read(last)
            if fragment:
                found.append(fragment)
            if self._read == state and self._held == held:
                return found

    def _begin(self, last: bool) -> Fragment:
        """At the beginning of an answer that may have thoughts."""
        assert self._shape.thoughts is not None
        opening, rest = self._shape.thoughts.opening, self._held.lstrip()
        if rest.startswith(opening):
            self._held, self._read, self._trim = rest[len(opening) :], self._think, True
        elif last or not opening.startswith(rest):
            self._read = self._text
        return Fragment()

    def _trimmed(self) -> None:
        if self._trim:
            self._held = self._held.lstrip()
            self._trim = not self._held

    def _think(self, last: bool) -> Fragment:
        assert self._shape.thoughts is not None
        self._trimmed()
        thoughts, mark, rest = self._held.partition(self._shape.thoughts.closing)
        if mark:
            self._held, self._read, self._trim = rest, self._text, True
            return Fragment(thoughts.rstrip())
        if last:
            self._held = ""
            return Fragment(thoughts)
        sure = self._held[: len(self._held) - _overlap(self._held, self._shape.thoughts.closing)].rstrip()
        self._held = self._held[len(sure) :]
        return Fragment(sure)

    def _text(self, last: bool) -> Fragment:
        self._trimmed()
        form = self._shape.form
        if form is None or (self._shape.one_call and self.calls):
            text, self._held = self._held, ""
            return Fragment(text=text if form is None else "")
        start, opening = _first(self._held, self._openings(form))
        if opening:
            text = self._held[:start]
            self._held = self._held[start + len(opening) :]
            self._read, self._opening, self._looked = self._call, opening, 0
            return Fragment(text="" if self._blank and not text.strip() else text)
        sure = self._held if last else self._held[: len(self._held) - self._possible(form)]
        if self._blank and not sure.strip() and (self.calls or not last):
            # White space before a call is not part of the answer; it waits for what comes after it.
            self._held = "" if last else self._held
            return Fragment()
        self._held = self._held[len(sure) :]
        self._blank = self._blank and not sure.strip()
        return Fragment(text=sure)

    def _openings(self, form: CallForm) -> Iterable[tuple[int, str]]:
        """Where calls may begin in what is held."""
        for opening in (*form.openings, *form.starts):
            yield self._held.find(opening), opening
        if self._blank:
            rest = self._held.lstrip()
            for opening in form.leading:
                if rest.startswith(opening):
                    yield len(self._held) - len(rest), opening

    def _possible(self, form: CallForm) -> int:
        """Characters at the end of what is held that may begin a call."""
        most = max(_overlap(self._held, opening) for opening in (*form.openings, *form.starts))
        rest = self._held.lstrip()
        if self._blank and any(opening.startswith(rest) for opening in form.leading):
            most = max(most, len(rest))
        return most

    def _call(self, last: bool) -> Fragment:
        form = self._shape.form
        assert form is not None
        if form.closing is None:
            return self._whole_call(form) if last else Fragment()
        start = self._held.find(form.closing, self._looked)
        while start >= 0:
            end = start + len(form.closing)
            try:
                calls = self._calls(form, self._held[:start])
            except UnfinishedError:  # the mark is within a string
                self._looked = end
                start = self._held.find(form.closing, end)
                continue
            except ValueError:
                return self._not_a_call(end)
            return self._made(calls, end)
        return self._whole_call(form) if last else Fragment()

    def _whole_call(self, form: CallForm) -> Fragment:
        """The call that ends with the answer."""
        end = len(self._held)
        try:
            return self._made(self._calls(form, self._held), end)
        except ValueError:
            return self._not_a_call(end)

    def _calls(self, form: CallForm, body: str) -> list[Call]:
        """The calls that `body` means, after what they began with."""
        inside = "" if self._opening in form.openings else self._opening
        return form.read(inside + body, self._shape.tools)

    def _made(self, calls: list[Call], end: int) -> Fragment:
        if self._shape.one_call:
            calls = calls[: 1 - self.calls]
        self.calls += len(calls)
        self._held, self._read, self._blank = self._held[end:], self._text, True
        return Fragment(calls=tuple(calls))

    def _not_a_call(self, end: int) -> Fragment:
        text = self._opening + self._held[:end]
        self._held, self._read, self._blank = self._held[end:], self._text, False
        return Fragment(text=text)


def _first(text: str, found: Iterable[tuple[int, str]]) -> tuple[int, str]:
    """The opening that comes first, of those at one place the longest."""
    there = [(start, -len(opening), opening) for start, opening in found if start >= 0]
    if not there:
        return -1, ""
    start, _, opening = min(there)
    return start, opening


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark` without completing it."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
