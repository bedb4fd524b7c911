"""Sizes and durations for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.units import read_count, read_duration, show_count, show_duration, show_size


@pytest.mark.parametrize(
    "size, text",
    [
        (5, "5 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (98_362_432, "98.4 MB"),
        (2_340_000_000, "2.34 GB"),
        (5e12, "5.00 TB"),
    ],
)
def test_people_read_powers_of_ten(size: int, text: str) -> None:
    assert show_size(size) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 s"),
        (24.4, "24 s"),
        (89.9, "90 s"),
        (90, "2 min"),
        (14 * 60, "14 min"),
        (30_000, "8 h 20 min"),
        (2 * 3600, "2 h"),
        (3 * 3600 - 1, "3 h"),
    ],
)
def test_people_read_two_units_at_most(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@given(st.floats(0, 1e7))
def test_what_is_shown_is_near(seconds: float) -> None:
    scale = {"s": 1, "min": 60, "h": 3600}
    words = show_duration(seconds).split()
    shown = sum(int(number) * scale[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(shown - seconds) <= 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300", 300),
        ("1h15m30.918s", 4530.918),
        ("500ms", 0.5),
        (".5s", 0.5),
        ("+5s", 5),
        ("-1s", -1),
        (" 2m ", 120),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-", "m", "5 m", "5d", "1m5", "nan", "1e3", "--1", "1h" * 100, "5s\n5s"]
)
def test_what_is_no_duration_is_none(text: str) -> None:
    assert read_duration(text) is None


@pytest.mark.parametrize(
    ("text", "count", "shown"),
    [
        ("3.5b", 3_500_000_000, "3.50b"),
        (" 82M ", 82_000_000, "82.0m"),
        ("999", 999, "999"),
        ("1k", 1000, "1.0k"),
    ],
)
def test_counts_are_read_and_shown_as_models_are_named(text: str, count: int, shown: str) -> None:
    assert read_count(text) == count
    assert show_count(count) == shown


@pytest.mark.parametrize("text", ["", "b", "0", "-1b", "1e9", "3.5t", "nan", "1_000", "٣b", "9" * 100])
def test_what_is_no_count_is_none(text: str) -> None:
    assert read_count(text) is None
