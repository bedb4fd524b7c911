"""Context and step size chosen for a memory limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import BudgetError, RockledgeError, UsageError
from rockledge.runtime.footprint import DEFAULT_CONTEXT, STEP_TOKENS, Demand, choose_footprint

DEMAND = Demand(
    1_000_000, lambda rows, pages: 1000 * rows, lambda rows, pages: 3200 * pages, page_tokens=32, longest=8192
)


def test_defaults_without_a_limit() -> None:
    chosen = choose_footprint(DEMAND, None, None)
    assert (chosen.context, chosen.step_tokens) == (DEFAULT_CONTEXT, STEP_TOKENS[0])
    assert chosen.bytes == 1_000_000 + 256_000 + 128 * 3200
    small = Demand(1, lambda rows, pages: rows, lambda rows, pages: 8 * pages, 2, 100)
    assert choose_footprint(small, None, None).context == 100


def test_context_shrinks_to_what_fits() -> None:
    # After weights and the smallest arena 40 pages and a bit are left.
    chosen = choose_footprint(DEMAND, None, 1_000_000 + 32_000 + 40 * 3200 + 3199)
    assert (chosen.context, chosen.step_tokens) == (40 * 32, 32)


def test_the_longest_context_counts_an_arena_that_grows_with_it() -> None:
    growing = Demand(
        1000, lambda rows, pages: 10 * rows + 7 * (pages // 16), lambda rows, pages: 100 * pages, 32, 8192
    )
    for memory in range(1420, 4000, 37):
        chosen = choose_footprint(growing, None, memory)
        if chosen.step_tokens == STEP_TOKENS[-1] and chosen.context < DEFAULT_CONTEXT:
            assert growing.total(32, chosen.context) <= memory < growing.total(32, chosen.context + 1)


def test_smaller_steps_before_an_error() -> None:
    chosen = choose_footprint(DEMAND, 3200, 1_000_000 + 100 * 3200 + 64_000)
    assert (chosen.context, chosen.step_tokens) == (3200, 64)


def test_messages_name_what_is_possible() -> None:
    with pytest.raises(BudgetError, match="at most 320 tokens"):
        choose_footprint(DEMAND, 4000, 1_000_000 + 32_000 + 10 * 3200)
    with pytest.raises(BudgetError, match=r"is 1\.0 MB, expected at least 1\.1 MB"):
        choose_footprint(DEMAND, None, 1_000_000)
    with pytest.raises(UsageError, match="1 to 8192"):
        choose_footprint(DEMAND, 8193, None)
    with pytest.raises(UsageError):
        choose_footprint(DEMAND, 0, None)


@given(
    context=st.none() | st.integers(1, 8192),
    memory=st.integers(0, 3_000_000),
)
def test_what_is_chosen_fits(context: int | None, memory: int) -> None:
    try:
        chosen = choose_footprint(DEMAND, context, memory)
    except RockledgeError:
        assert memory < DEMAND.total(STEP_TOKENS[-1], context or 1)
        return
    assert chosen.bytes == DEMAND.total(chosen.step_tokens, chosen.context) <= memory
    assert chosen.context == context or context is None


def streamed(pieces: int) -> Demand:
    """A model of which half a megabyte is always in memory, and so many bytes more if there is room."""
    return Demand(500_000, DEMAND.arena, DEMAND.cache, 32, 8192, "--memory-budget", "the ring", pieces)


def test_steps_that_read_the_weights_are_larger_where_that_adds_little() -> None:
    others = 500_000 + 128 * 3200
    # 1,024 rows drive out 992 kB more than 32 do, which is little of 20 MB.
    assert choose_footprint(streamed(20_000_000), None, others + 2_000_000).step_tokens == 1024
    # Of 1.032 MB that are missing they would be much, and so would the 224 kB of 256 rows.
    assert choose_footprint(streamed(2_000_000), None, others + 1_000_000).step_tokens == 128
    # Where all but the embedding just fits nothing is driven out for them.
    assert choose_footprint(streamed(2_000_000), None, others + 2_032_000).step_tokens == 32
    assert choose_footprint(streamed(2_000_000), None, others + 2_100_000).step_tokens == 64


def test_a_budget_that_holds_nothing_says_so_by_its_own_name() -> None:
    with pytest.raises(BudgetError, match=r"--memory-budget is 500\.0 kB, .* for the ring") as caught:
        choose_footprint(streamed(2_000_000), None, 500_000)
    assert "stream the weights" not in str(caught.value)
    with pytest.raises(BudgetError, match="stream the weights with --memory-budget"):
        choose_footprint(DEMAND, None, 1_000_000)
