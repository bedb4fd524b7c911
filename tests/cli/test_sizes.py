"""Sizes that people type and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.cli.sizes import parse_size, show_size
from rockledge.errors import UsageError


@pytest.mark.parametrize(
    "text, size",
    [("6G", 6 << 30), ("6g", 6 << 30), ("1.5GiB", 3 << 29), ("900M", 900 << 20), ("7KB", 7168), ("12", 12)],
)
def test_units_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "G", "-1G", "6X", "6 G B", "1e9", "nan", "0.0001"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="6G"):
        parse_size(text)


@given(st.text(max_size=8))
def test_any_text_is_a_positive_size_or_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except UsageError:
        return
    assert size > 0


@pytest.mark.parametrize(
    "size, text",
    [(5, "5 B"), (999, "999 B"), (1500, "1.5 kB"), (98_362_432, "98.4 MB"), (2_340_000_000, "2.34 GB")],
)
def test_people_read_powers_of_ten(size: int, text: str) -> None:
    assert show_size(size) == text
