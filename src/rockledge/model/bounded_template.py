"""A sandbox for chat templates that also bounds their time and the size of what they make.

A template comes with a model and is somebody else's program. Jinja's sandbox keeps it from Python's objects;
loops that never end and texts that double in each turn it allows. Here every turn of a loop and every call
looks at the clock, and what would make a long text is asked first how long it will be.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 2.0
"""Processor time of one conversation. Templates take milliseconds."""

MOST_CHARACTERS = 1 << 25
"""Of the prompt and of every text on the way; more than a request can hold."""

ITEM_CHARACTERS = 16
"""An item of a list counts like so many."""

MOST_BITS = 1 << 12
MOST_WIDTH = 10_000
MOST_INDENT = 32

_WIDE = re.compile(r"%[^A-Za-z%]*(\*|[0-9]{5,})|:[^{}]*([0-9]{5,}|\{)")
_WIDTHS = {"center": MOST_WIDTH, "wordwrap": 1 << 31, "batch": MOST_WIDTH, "slice": MOST_WIDTH}

SAID_AT_MOST = 8 * MOST_CHARACTERS
"""Of all that is written, what goes through several macros counted in each."""


@dataclass
class _Use:
    """`ends`: at which processor time of the thread; `said`: characters written so far."""

    ends: float
    said: int = 0


_use: ContextVar[_Use | None] = ContextVar("_use", default=None)


class TooLongError(Exception):
    """The template has taken more time than it may."""


@contextmanager
def bounded() -> Iterator[None]:
    """What a template does in this block has `SECONDS` of this thread's processor time."""
    token = _use.set(_Use(time.thread_time() + SECONDS))
    try:
        yield
    finally:
        _use.reset(token)


def _check_time() -> None:
    use = _use.get()
    if use is not None and time.thread_time() > use.ends:
        raise TooLongError(f"it had not ended after {SECONDS:g} s")


def _check_size(size: int) -> None:
    """MemoryError before the memory is taken."""
    if size > MOST_CHARACTERS:
        raise MemoryError(f"it makes a text or list longer than {MOST_CHARACTERS >> 20} MiB")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The environment; call `bound_filters` when all filters are in it."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.globals["lipsum"]  # makes as much text as it is asked for
        self.filters |= {"_turns": _turns, "_concatenated": _concatenated, "_said": _said}

    def bound_filters(self) -> None:
        """Puts the bounds around the filters."""
        for name, function in self.filters.items():
            if not name.startswith("_"):
                self.filters[name] = _bounded_filter(name, function)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The text of a template, a macro or a block."""
        found, size = [], 0
        for piece in pieces:
            size += len(piece)
            _check_size(size)
            found.append(piece)
        return "".join(found)

    def _generate(self, source: nodes.Template, *arguments: Any, **named: Any) -> str:
        """Jinja's hook between reading a template and compiling it."""
        for loop in list(source.find_all(nodes.For)):
            loop.iter = self._filtered(loop.iter, "_turns")
        for joined in list(source.find_all(nodes.Concat)):
            parts = nodes.List(joined.nodes, lineno=joined.lineno)
            joined.nodes = [self._filtered(parts, "_concatenated")]
        for output in list(source.find_all(nodes.Output)):
            said: list[nodes.Expr] = [
                n if isinstance(n, nodes.TemplateData) else self._filtered(n, "_said") for n in output.nodes
            ]
            output.nodes = said
        source.set_environment(self)
        return super()._generate(source, *arguments, **named)

    def _filtered(self, node: Any, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """A sum, product, power or remainder."""
        if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            _check_size(_size(left) + _size(right))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * max(right, 0) > MOST_BITS:
                raise MemoryError(f"it makes a number of more than {MOST_BITS} bits")
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Any:
        """Jinja's own way to let a text's `format` be called."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call of a function, method or macro."""
        _check_time()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, (str, bytes, int)):
            _check_method(owner, getattr(__obj, "__name__", ""), args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def _turns(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _check_time()
        yield item


def _said(value: Any) -> Any:
    use = _use.get()
    if use is not None and isinstance(value, str):
        use.said += len(value)
        if use.said > SAID_AT_MOST:
            raise MemoryError("it writes too much")
    return value


def _concatenated(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def _size(value: Sized) -> int:
    """Of a text its characters, of a list several for each item."""
    return len(value) if isinstance(value, (str, bytes)) else ITEM_CHARACTERS * len(value)


def _check_product(left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, Sized) and isinstance(times, int):
            _check_size(_size(sequence) * max(times, 0))
    if (
        isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() + right.bit_length() > MOST_BITS
    ):
        raise MemoryError(f"it makes a number of more than {MOST_BITS} bits")


def _check_format(text: str) -> None:
    if _WIDE.search(text):
        raise MemoryError("it formats with a width that is not small")


def _check_method(owner: str | bytes | int, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    given = [*args, *named.values()]
    if name == "replace" and isinstance(owner, str):
        _check_replaced(owner, *given[:2])
    elif name == "join" and isinstance(owner, str) and given:
        _check_joined(owner, given[0])
    elif name == "translate" and isinstance(owner, str):
        raise MemoryError("it calls translate, which templates here cannot")
    else:
        _check_size(max((value for value in given if isinstance(value, int)), default=0))


def _check_replaced(text: str, old: Any = "", new: Any = "") -> None:
    if isinstance(old, str) and isinstance(new, str):
        _check_size(len(text) + text.count(old) * len(new))


def _check_joined(separator: Any, items: Any) -> None:
    if isinstance(items, Collection):
        texts = [item for item in items if isinstance(item, str)]
        _check_size(len(str(separator)) * len(items) + sum(map(len, texts)))


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same filter (with the marks by which Jinja knows what to pass to it)."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def filtered(*args: Any, **named: Any) -> Any:
        _check_time()
        value, *given = args[first:]
        given += named.values()
        numbers = [number for number in given if isinstance(number, int)]
        if name == "replace":
            _check_replaced(str(value), *given[:2])
        elif name == "join":
            value = value if isinstance(value, Sized) else list(value)
            args = (*args[:first], value, *args[first + 1 :])
            _check_joined(given[0] if given else "", value)
        elif name == "format":
            _check_format(str(value))
        elif name == "indent":
            width = max((len(w) if isinstance(w, str) else w for w in given), default=4)
            _check_size((str(value).count("\n") + 1) * width)
        elif name == "tojson" and max(numbers, default=0) > MOST_INDENT:
            raise MemoryError(f"it indents by more than {MOST_INDENT}")
        elif max(numbers, default=0) > _WIDTHS.get(name, 1 << 62):
            raise MemoryError(f"{name} has a width of more than {_WIDTHS[name]}")
        return function(*args, **named)

    return filtered
