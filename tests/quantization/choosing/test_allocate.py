"""The knapsack: the best choice of all, found by trying them all, and sentences for budgets that cannot be
met."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import BudgetError
from rockledge.quantization.choosing.allocate import Allocation, Band, Budget, Option, allocate

options = st.lists(
    st.builds(
        Option,
        bits=st.sampled_from([3, 4, 8]),
        price=st.floats(0, 1, allow_subnormal=False),
        bytes=st.integers(1, 10_000),
        milliseconds=st.floats(0.01, 5),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
problems = st.lists(st.builds(Band, st.just("x"), st.just(0), st.just(8), options), min_size=1, max_size=6)


def best_by_trying(bands: list[Band], budget: Budget) -> Allocation | None:
    feasible = [
        choice
        for picked in product(*(band.options for band in bands))
        if (choice := Allocation(picked)).bytes <= (budget.bytes or 10**12)
        and choice.milliseconds <= (budget.milliseconds or 1e12)
    ]
    return min(feasible, key=lambda choice: choice.price, default=None)


@given(bands=problems, share=st.floats(0, 1.2), time_share=st.one_of(st.none(), st.floats(0.3, 1.2)))
@settings(max_examples=60, deadline=None)
def test_no_choice_within_the_budget_is_cheaper(
    bands: list[Band], share: float, time_share: float | None
) -> None:
    most = sum(max(option.bytes for option in band.options) for band in bands)
    slowest = sum(max(option.milliseconds for option in band.options) for band in bands)
    budget = Budget(max(1, int(share * most)), None if time_share is None else time_share * slowest + 1e-3)
    expected = best_by_trying(bands, budget)
    if expected is None:
        with pytest.raises(BudgetError):
            allocate(bands, budget)
        return
    found = allocate(bands, budget)
    assert budget.bytes is None or found.bytes <= budget.bytes
    assert found.price <= expected.price + 2e-3 * max(expected.price, 1e-3) + 1e-6
    for band, option in zip(bands, found.options, strict=True):
        assert option in band.options


def two(bytes_4: int, bytes_8: int) -> Band:
    return Band("x", 0, 8, (Option(4, 0.5, bytes_4, 2.0), Option(8, 0.1, bytes_8, 1.0)))


def test_without_limits_every_band_gets_its_cheapest_option() -> None:
    assert [option.bits for option in allocate([two(1, 2)] * 3, Budget()).options] == [8, 8, 8]


def test_the_nearest_possible_size_is_named() -> None:
    with pytest.raises(BudgetError, match="narrowest choice takes 200 B; ask for at least that"):
        allocate([two(100, 150)] * 2, Budget(bytes=199))


def test_the_nearest_possible_time_is_named() -> None:
    with pytest.raises(BudgetError, match=r"at least 2\.000 ms"):
        allocate([two(100, 150)] * 2, Budget(milliseconds=1.5))


def test_limits_that_exclude_each_other_are_named_together() -> None:
    # Small is slow here: 250 bytes allow one band of 8 bits, 3 ms; 2 ms need two.
    with pytest.raises(BudgetError, match=r"not together; .* 3\.000 ms"):
        allocate([two(100, 150)] * 2, Budget(bytes=250, milliseconds=2.0))
