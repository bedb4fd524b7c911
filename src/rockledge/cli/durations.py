"""Durations as people write them: 30s, 5m, 1h30m."""

from __future__ import annotations

import re

from rockledge.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `5m`, `1h30m`, `0` or `300`; -1.0 for one below 0, which means for ever.

    Raises:
        UsageError: it is not a duration.
    """
    sign, rest = re.fullmatch(r"(-?)(.*)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    if re.fullmatch(r"\d+(\.\d+)?", rest, re.ASCII):
        seconds = float(rest)
    elif re.fullmatch(r"(\d+(\.\d+)?[smh])+", rest, re.ASCII):
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", rest, re.ASCII)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise UsageError(f"'{text[:60]}' is not a duration; write one such as 30s, 5m, 0, or -1 for ever")
    return -1.0 if sign else seconds
