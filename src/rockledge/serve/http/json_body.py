"""JSON of a request body, read so that no other thread waits long for it."""

from __future__ import annotations

import json
import json.decoder
import json.scanner
import math
from typing import Any

from rockledge.serve.errors import ApiError

FEW_VALUES = 100_000
"""Python's reader keeps all other threads waiting until it is done, 20 to 30 ms for so many values; more are
read by one written in Python, which does not."""

MOST_BRACKETS = 100_000
"""Lists and objects of a body; each takes up to a hundred bytes of memory for two of the body."""


def parse_json(body: bytes | bytearray, brackets: int = MOST_BRACKETS) -> object:
    """The JSON value of `body`, which has at most so many `brackets` (in its strings too).

    Raises:
        ApiError: 400 when it is not JSON, 413 for too many brackets.
    """
    opened = body.count(b"[") + body.count(b"{")
    if opened > brackets:
        raise ApiError(
            f"the request body has {opened} opening brackets, expected at most {brackets}; shorten it",
            status=413,
        )
    try:
        text = body.decode()
        patient = opened + body.count(b",") > FEW_VALUES
        return (_PATIENT if patient else _QUICK).decode(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if "integer string conversion" in reason:  # Python's own advice is not for clients
            reason = "it has a number of thousands of digits"
        raise ApiError(f"the request body is not valid JSON: {reason}") from None


def _no_number(word: str) -> float:
    """What Python takes for a number and JSON does not: it could not be sent back."""
    raise ValueError(f"it has {word}, which is not a number of JSON")


def _finite(digits: str) -> float:
    found = float(digits)
    if math.isinf(found):
        raise ValueError("it has a number that is larger than 1.8e308")
    return found


def _patient() -> json.JSONDecoder:
    """The reader that Python falls back to without its C module."""
    decoder: Any = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)
    decoder.parse_object = json.decoder.JSONObject  # type: ignore[attr-defined]
    decoder.parse_array = json.decoder.JSONArray  # type: ignore[attr-defined]
    decoder.scan_once = json.scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]
    made: json.JSONDecoder = decoder
    return made


_QUICK = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)
_PATIENT = _patient()
