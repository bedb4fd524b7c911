"""Reads a request body field by field, so that every mistake is named and nothing is silently ignored."""

from __future__ import annotations

import math
from typing import Any

from rockledge.serve.errors import ApiError

# Fields that cannot change the answer of this server: bookkeeping, routing and hints of hosted services.
HARMLESS = frozenset(
    {
        "cache_prompt",
        "keep_alive",
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)

# Fields of the API whose listed values have no effect; any other value would change the answer.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}

MOST_SHOWN = 200
"""Characters of an unknown field's name that its error repeats."""


class Fields:
    """One JSON object of a request. A field that is absent or null has its default."""

    def __init__(self, body: object, where: str = "") -> None:
        if not isinstance(body, dict):
            raise ApiError(f"{where or 'the request body'} must be a JSON object", param=where or None)
        self._values: dict[str, Any] = {key: value for key, value in body.items() if value is not None}
        self._where = where

    def _name(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def wrong(self, name: str, expected: str) -> ApiError:
        """The error of a field whose value is not what was expected."""
        return ApiError(f"'{self._name(name)}' must be {expected}", param=self._name(name))

    def take(self, name: str) -> Any:
        """The value of a field (None when absent); it counts as read."""
        return self._values.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether a field is there and not read yet."""
        return name in self._values

    def number(self, name: str, default: float, low: float, high: float = math.inf) -> float:
        """A finite number in [low, high]."""
        value = self.take(name)
        if value is None:
            return default
        bounds = f"a number of at least {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.wrong(name, bounds)
        if value == math.inf:
            raise self.wrong(name, "a finite number")
        return float(value)

    def integer(self, name: str, default: int | None, low: int, high: int) -> int | None:
        """A whole number in [low, high]."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():  # JSON has one kind of number
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number between {low} and {high}")
        return value

    def count(self, name: str, default: int, low: int, high: int) -> int:
        """As `integer`, of a field that always has a value."""
        value = self.integer(name, None, low, high)
        return default if value is None else value

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        if value is None:
            return None
        return self.valid_text(name, value)

    def valid_text(self, name: str, value: object) -> str:
        """`value`, if it is a string of whole characters (JSON can hold lone surrogates)."""
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise self.wrong(name, "valid Unicode text (it holds half of a surrogate pair)") from None
        return value

    def finish(self) -> None:
        """Refuses what was not read, unless it has no effect."""
        for name, value in self._values.items():
            if name in HARMLESS:
                continue
            if name in NEUTRAL:
                if any(value == neutral and type(value) is not bool for neutral in NEUTRAL[name]):
                    continue
                raise ApiError(
                    f"'{self._name(name)}' has a value that this server does not support; leave it out",
                    param=self._name(name),
                    code="unsupported_parameter",
                )
            shown = self._name(name)[:MOST_SHOWN]
            raise ApiError(
                f"'{shown}' is not a parameter of this endpoint; leave it out",
                param=shown,
                code="unknown_parameter",
            )
