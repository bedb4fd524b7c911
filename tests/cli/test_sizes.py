"""Sizes that people type and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.cli.sizes import parse_count, parse_size
from rockledge.errors import UsageError


@pytest.mark.parametrize(
    "text, size",
    [("6G", 6 << 30), ("6g", 6 << 30), ("1.5GiB", 3 << 29), ("900M", 900 << 20), ("7KB", 7168), ("12", 12)],
)
def test_units_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "G", "-1G", "6X", "6 G B", "1e9", "nan", "0.0001", "9" * 400, "9000000T"]
)
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="6G"):
        parse_size(text)


def test_a_number_of_tokens_that_nothing_counts_is_refused() -> None:
    with pytest.raises(UsageError, match="8k"):
        parse_count("9" * 400)


@given(st.text(max_size=8))
def test_any_text_is_a_positive_size_or_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except UsageError:
        return
    assert size > 0


@pytest.mark.parametrize(
    "text, count", [("8k", 8192), ("8K", 8192), ("4096", 4096), ("1.5k", 1536), ("1M", 1 << 20)]
)
def test_tokens_are_counted_by_1024(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-8k", "8kB", "1.5", "1e3", "nan", "8 000"])
def test_what_is_no_count_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="8k"):
        parse_count(text)
