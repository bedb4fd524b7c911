"""JSON of a request body, read so that no other thread waits long for it."""

from __future__ import annotations

import json
import json.decoder
import json.scanner
from typing import Any

from rockledge.serve.errors import ApiError

FEW_VALUES = 100_000
"""Python's reader holds the interpreter until the whole text is read, 20 to 30 ms for so many values; more are
read by one written in Python, which lets other threads run."""

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
            f"the request body has {opened} opening brackets, expected at most {brackets}; shorten it", status=413
        )
    try:
        text = body.decode()
        patient = opened + body.count(b",") > FEW_VALUES
        return _PATIENT.decode(text) if patient else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the request body is not valid JSON: {error}") from None


def _patient() -> json.JSONDecoder:
    """The reader that Python falls back to without its C module."""
    decoder: Any = json.JSONDecoder()
    decoder.parse_object = json.decoder.JSONObject  # type: ignore[attr-defined]
    decoder.parse_array = json.decoder.JSONArray  # type: ignore[attr-defined]
    decoder.scan_once = json.scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]
    made: json.JSONDecoder = decoder
    return made


_PATIENT = _patient()
