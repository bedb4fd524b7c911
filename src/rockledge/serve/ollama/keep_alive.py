"""How long a model stays loaded: seconds as a number, or a duration as Go writes it.

Source: `Duration.UnmarshalJSON` in https://github.com/ollama/ollama/blob/main/api/types.go, and
https://pkg.go.dev/time#ParseDuration.
"""

from __future__ import annotations

import math
import re
from typing import Any

from rockledge.serve.models import MOST_KEEP_ALIVE_S
from rockledge.serve.schema import Field, Reading, expected

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER, _UNIT = r"\d+\.?\d*|\.\d+", "ns|us|µs|μs|ms|s|m|h"
_PIECE = re.compile(rf"({_NUMBER})({_UNIT})", re.ASCII)
_DURATION = re.compile(rf"([+-]?)((?:(?:{_NUMBER})(?:{_UNIT}))+)", re.ASCII)
_PLAIN = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
_MOST_CHARACTERS = 64


def _keep_alive(value: Any, reading: Reading) -> float:
    seconds = _duration(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != seconds:
        raise expected('a number of seconds, or a duration such as "5m"')
    # JSON's whole numbers may be larger than a float can be.
    return -1.0 if seconds < 0 or seconds > MOST_KEEP_ALIVE_S else float(seconds)


def _duration(text: str) -> float | None:
    """Seconds of "1h30m", "-1s", or "300"; None for anything else."""
    text = text.strip()[: _MOST_CHARACTERS + 1]
    if len(text) > _MOST_CHARACTERS:
        return None
    if _PLAIN.fullmatch(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    pieces = _PIECE.findall(found[2])
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in pieces) * (
        -1 if found[1] == "-" else 1
    )


KEEP_ALIVE = Field(_keep_alive, {"anyOf": [{"type": "number"}, {"type": "string"}]})
"""Seconds; below 0 for ever, and so is what has no end."""
