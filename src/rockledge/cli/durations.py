"""Durations as people write them: 30s, 5m, 1h30m."""

from __future__ import annotations

from rockledge.errors import UsageError
from rockledge.units import read_duration


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `5m`, `1h30m`, `0` or `300`; -1.0 for one below 0, which means for ever.

    Raises:
        UsageError: it is not a duration.
    """
    seconds = read_duration(text)
    if seconds is None:
        raise UsageError(f"'{text[:60]}' is not a duration; write one such as 30s, 5m, 0, or -1 for ever")
    return -1.0 if seconds < 0 else seconds
