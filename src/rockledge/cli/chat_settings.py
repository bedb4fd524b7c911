"""What `/set` changes in a chat: how tokens are drawn, and variables of the chat template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.runtime.sampling import Sampling

DEFAULT = "default"  # the value that takes a setting back to what the chat began with


@dataclass(frozen=True)
class ChatSettings:
    """Settings of the next answer. `variables` are those of the chat template that were set in the chat."""

    sampling: Sampling
    max_tokens: int
    variables: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Every setting that has a value, by name."""
        sampling = {name: getattr(self.sampling, name) for name in _SAMPLING}
        return {**sampling, "max_tokens": self.max_tokens, **self.variables}


def _number(text: str) -> float:
    return float(text)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _seed(text: str) -> int | None:
    return None if text == "none" else int(text)


_SAMPLING: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (_number, "a number of at least 0 (0 is greedy)"),
    "top_k": (_count, "a whole number of at least 0 (0 is off)"),
    "top_p": (_number, "a number above 0 and at most 1 (1 is off)"),
    "min_p": (_number, "a number from 0 (off) to 1"),
    "seed": (_seed, "a whole number, or none for another answer every time"),
}
NAMES = (*_SAMPLING, "max_tokens")


def changed(
    now: ChatSettings, start: ChatSettings, chat: ChatTemplate, name: str, value: str
) -> ChatSettings:
    """`now` with one setting changed; `start` has the defaults, `chat` the variables.

    Raises UsageError for a name that neither sampling nor the template knows, and for an impossible value.
    """
    if name in _SAMPLING:
        return replace(now, sampling=_sampling(now.sampling, start.sampling, name, value))
    if name == "max_tokens":
        tokens = start.max_tokens if value == DEFAULT else _parsed(_count, name, value, _TOKENS)
        if tokens < 1:
            raise UsageError(f"{name} is {value}, expected {_TOKENS}")
        return replace(now, max_tokens=tokens)
    if name not in chat.variables():
        raise UsageError(f"there is no setting {name!r}, expected {', '.join(names(chat))}")
    others = {key: known for key, known in now.variables.items() if key != name}
    return replace(now, variables=others if value == DEFAULT else {**others, name: _json_or_text(value)})


_TOKENS = "a whole number of at least 1"


def names(chat: ChatTemplate) -> list[str]:
    """All that `/set` takes."""
    return [*NAMES, *sorted(chat.variables())]


def _sampling(now: Sampling, start: Sampling, name: str, value: str) -> Sampling:
    parse, expected = _SAMPLING[name]
    number = getattr(start, name) if value == DEFAULT else _parsed(parse, name, value, expected)
    if name == "temperature" and number < 0:
        raise UsageError(f"{name} is {value}, expected {expected}")
    return replace(now, **{name: number})


def _parsed(parse: Callable[[str], Any], name: str, value: str, expected: str) -> Any:
    try:
        return parse(value)
    except ValueError:
        raise UsageError(f"{name} is {value}, expected {expected}") from None


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
