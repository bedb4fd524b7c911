"""Durations as people write them."""

import pytest

from rockledge.cli.durations import parse_duration
from rockledge.errors import UsageError


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("5m", 300),
        ("30s", 30),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("0", 0),
        ("0s", 0),
        ("300", 300),
        ("-1", -1),
        ("-5m", -1),
        (" 2m ", 120),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 m", "5d", "1m5", "nan", "inf", "1e3", "--1", "٣", "5M"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)
