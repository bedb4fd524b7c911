"""What counts as a phrase that repeats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.doctor.checks.repetition import loop


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.integers(10, 19), max_size=9))
def test_doctor_sees_a_loop(phrase: list[int], before: list[int]) -> None:
    assert loop([*before, *phrase * 12]) >= 12


@pytest.mark.parametrize("tokens", [[], [1], list(range(16)), [1, 2, 3, 4, 5, 6] * 2, [7] * 4])
def test_doctor_sees_no_loop(tokens: list[int]) -> None:
    assert loop(tokens) == 0
