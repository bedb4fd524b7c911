"""How long a model stays loaded: seconds as a number, or a duration as Go writes it.

Source: `Duration.UnmarshalJSON` in https://github.com/ollama/ollama/blob/main/api/types.go.
"""

from __future__ import annotations

from typing import Any

from rockledge.serve.residency.models import MOST_KEEP_ALIVE_S
from rockledge.serve.schema import Field, Reading, expected
from rockledge.units import read_duration


def _keep_alive(value: Any, reading: Reading) -> float:
    seconds = read_duration(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != seconds:
        raise expected('a number of seconds, or a duration such as "5m"')
    # JSON's whole numbers may be larger than a float can be.
    return -1.0 if seconds < 0 or seconds > MOST_KEEP_ALIVE_S else float(seconds)


KEEP_ALIVE = Field(_keep_alive, {"anyOf": [{"type": "number"}, {"type": "string"}]})
"""Seconds; below 0 for ever, and so is what has no end."""
