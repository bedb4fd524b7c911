"""Arguments as Gemma writes them: like JSON, with bare names as keys and marks of its own around strings."""

from __future__ import annotations

import json
import re
from typing import Any

from rockledge.serve.schema import MOST_NESTED

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None, "None": None, "True": True, "False": False}


def read_gemma_object(text: str, quote: str) -> dict[str, Any]:
    """The object that `text` is, such as {city:<escape>Paris<escape>,days:3}, with strings within `quote`.

    Raises:
        ValueError: it is not one.
    """
    reader = _Reader(text, quote)
    found = reader.value(0)
    if reader.place != len(text) or not isinstance(found, dict):
        raise ValueError("not an object of arguments")
    return found


class _Reader:
    def __init__(self, text: str, quote: str) -> None:
        self._text, self._quote, self.place = text, quote, 0

    def value(self, depth: int) -> Any:
        if depth > MOST_NESTED:
            raise ValueError("nested too deeply")
        if self._take(self._quote):
            return self._until(self._quote)
        if self._take("{"):
            return dict(self._items("}", depth, named=True))
        if self._take("["):
            return [value for _, value in self._items("]", depth, named=False)]
        if self._text.startswith('"', self.place):
            value, self.place = json.JSONDecoder().raw_decode(self._text, self.place)
            return value
        return self._bare()

    def _items(self, end: str, depth: int, named: bool) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        if self._take(end):
            return found
        while True:
            key = self._key() if named else ""
            found.append((key, self.value(depth + 1)))
            if self._take(end):
                return found
            if not self._take(","):
                raise ValueError("no comma between values")

    def _key(self) -> str:
        if self._take(self._quote):
            key = self._until(self._quote)
            if not self._take(":"):
                raise ValueError("a key without a value")
            return key
        return self._until(":").strip().strip('"')

    def _bare(self) -> Any:
        """A number or a word; any other text up to the next comma or bracket is a string."""
        found = re.compile(r"[^,\[\]{}]*").match(self._text, self.place)
        assert found is not None
        self.place = found.end()
        word = found[0].strip()
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word):
            return json.loads(word)
        if not word:
            raise ValueError("a value is missing")
        return word

    def _take(self, mark: str) -> bool:
        start = self.place
        while start < len(self._text) and self._text[start].isspace():
            start += 1
        if not self._text.startswith(mark, start):
            return False
        self.place = start + len(mark)
        return True

    def _until(self, mark: str) -> str:
        end = self._text.find(mark, self.place)
        if end < 0:
            raise ValueError(f"{mark} is missing")
        found = self._text[self.place : end]
        self.place = end + len(mark)
        return found
