r"""Regular expressions of others, matched with names of modules in a time that grows with both lengths.

Python's `re` tries one way after another: (a+)+ takes 2^n of them for a name of n letters, and an adapter
that somebody published must not stop `quantize` for ever. Here all ways are followed together (Thompson 1968,
doi.org/10.1145/363347.363387): a pattern is a list of steps, and what is remembered of a name that is read so
far is the set of steps that may come next.

Known are characters, sets, groups, alternatives, repetitions, and ^ and $. What looks around or back is not:
nobody has needed it for names of modules.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from rockledge.errors import UsageError

MOST_STEPS: Final = 5_000
"""Of one pattern, with repetitions written out."""
LONGEST: Final = 500
"""Characters of a name; those of modules have less than a hundred."""
_DEEPEST: Final = 100  # groups within groups
_REPEAT: Final = re.compile(r"\*|\+|\?|\{([0-9]+)\}|\{([0-9]*),([0-9]*)\}")
_SET: Final = re.compile(r"\[\^?\]?(?:\\.|[^]\\])*\]", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:[dDwWsS]|[^0-9A-Za-z])", re.DOTALL)
_OPENING: Final = re.compile(r"\((?:\?:|\?P<\w+>|(?!\?))")

_States = frozenset[int]
_Emit = Callable[[], None]


class NamePattern:
    """A pattern of `re`, which a whole name matches or does not.

    Raises re.error, OverflowError or RecursionError where `re` does, and UsageError for what is not known
    here or takes more than `MOST_STEPS`.
    """

    def __init__(self, pattern: str) -> None:
        re.compile(pattern)
        self._steps = _Compiler(pattern).steps
        self._next: dict[tuple[_States, str], _States] = {}

    def matches(self, name: str) -> bool:
        """Whether all of `name` is what the pattern says; no name of more than `LONGEST` characters is."""
        if len(name) > LONGEST:
            return False
        states = frozenset((0,))
        for place, sign in enumerate(name):
            if place == 0:
                states = self._read(states, sign, begins=True)
            else:
                after = self._next.get((states, sign))
                if after is None:
                    after = self._next[states, sign] = self._read(states, sign)
                states = after
            if not states:
                return False
        return len(self._steps) in self._reached(states, begins=not name, ends=True)

    def _read(self, states: Iterable[int], sign: str, *, begins: bool = False) -> _States:
        """What may come after `sign` where `states` may come before it."""
        found = set()
        for state in self._reached(states, begins=begins, ends=False):
            step = self._steps[state] if state < len(self._steps) else None
            if isinstance(step, re.Pattern) and step.fullmatch(sign):
                found.add(state + 1)
        return frozenset(found)

    def _reached(self, states: Iterable[int], *, begins: bool, ends: bool) -> set[int]:
        """These and all that may come without another character."""
        waiting, found = list(states), set(states)
        while waiting:
            state = waiting.pop()
            step = self._steps[state] if state < len(self._steps) else None
            after: tuple[int, ...] = ()
            if isinstance(step, tuple):
                after = step
            elif (step == "^" and begins) or (step == "$" and ends):
                after = (state + 1,)
            for one in after:
                if one not in found:
                    found.add(one)
                    waiting.append(one)
        return found


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    """How often at the least and at the most; None for no end."""
    exactly, low, high = found.groups()
    if exactly is not None:
        return int(exactly), int(exactly)
    if low is not None:
        return int(low or 0), int(high) if high else None
    return (1 if found[0] == "+" else 0), (1 if found[0] == "?" else None)


_Step = re.Pattern[str] | str | tuple[int, ...]
"""A character that is read; ^ or $; or the steps that may come instead."""


class _Compiler:
    """The steps of a pattern that `re` has found to be one. Each method reads from `_place` on and returns
    what appends its steps, so that repetitions can append them again."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._place = pattern, 0
        self.steps: list[_Step] = []
        self._alternatives(0)()

    def _alternatives(self, depth: int) -> _Emit:
        if depth > _DEEPEST:
            self._refuse("groups that are nested too deep")
        ways = [self._sequence(depth)]
        while self._ahead("|"):
            self._place += 1
            ways.append(self._sequence(depth))

        def emit() -> None:
            ends = []
            for way in ways[:-1]:
                split = self._append(())
                way()
                ends.append(self._append(()))
                self.steps[split] = (split + 1, len(self.steps))
            ways[-1]()
            for end in ends:
                self.steps[end] = (len(self.steps),)

        return emit

    def _sequence(self, depth: int) -> _Emit:
        parts = []
        while self._place < len(self._pattern) and not self._ahead("|", ")"):
            parts.append(self._repeated(self._atom(depth)))

        def emit() -> None:
            for part in parts:
                part()

        return emit

    def _repeated(self, part: _Emit) -> _Emit:
        found = _REPEAT.match(self._pattern, self._place)
        if found is None:
            return part
        self._place = found.end()
        if self._ahead("+"):
            self._refuse("a possessive repetition")
        if self._ahead("?"):  # as few as possible: the same names
            self._place += 1
        least, most = _bounds(found)

        def emit() -> None:
            for _ in range(least):
                self._append((len(self.steps) + 1,))  # so that repeated nothing ends too
                part()
            if most is None:
                split = self._append(())
                part()
                self._append((split,))
                self.steps[split] = (split + 1, len(self.steps))
                return
            splits = []
            for _ in range(most - least):
                splits.append(self._append(()))
                part()
            for split in splits:
                self.steps[split] = (split + 1, len(self.steps))

        return emit

    def _atom(self, depth: int) -> _Emit:
        start, sign = self._place, self._pattern[self._place]
        if sign == "(":
            opening = _OPENING.match(self._pattern, start)
            if opening is None:
                self._refuse(self._pattern[start : start + 4])
            self._place = opening.end()
            inside = self._alternatives(depth + 1)
            self._place += 1
            return inside
        if sign in "^$":
            self._place += 1
            return lambda: self._emit(sign)
        form = {"[": _SET, "\\": _ESCAPE}.get(sign)
        if form is None:
            self._place += 1
            read = re.compile(sign if sign == "." else re.escape(sign))
        else:
            found = form.match(self._pattern, start)
            if found is None:
                self._refuse(self._pattern[start : start + 2])
            self._place = found.end()
            read = re.compile(found[0])
        return lambda: self._emit(read)

    def _emit(self, step: _Step) -> None:
        self._append(step)

    def _append(self, step: _Step) -> int:
        if len(self.steps) >= MOST_STEPS:
            self._refuse("too many repetitions")
        self.steps.append(step)
        return len(self.steps) - 1

    def _ahead(self, *signs: str) -> bool:
        return self._pattern[self._place : self._place + 1] in signs

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(f"the pattern {self._pattern[:60]!r} has {what}, which is not known here")
