"""The envelope and the goals, on tables made by hand."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.accuracy_rows import Row
from bench.goals import OURS, THEIRS, at, goals, lower_hull


def row(engine: str, name: str, bits: float, kl: float) -> Row:
    return Row("m", engine, name, int(bits * 1000), bits, kl, 5 * kl, 0.9, 20.0, "abc1234")


def test_hull_leaves_out_what_others_beat() -> None:
    points = [(8.5, 0.001), (6.2, 0.05), (5.5, 0.02), (4.5, 0.08), (4.5, 0.2), (4.9, 0.079), (4.0, 0.3)]
    assert lower_hull(points) == [(4.0, 0.3), (4.5, 0.08), (5.5, 0.02), (8.5, 0.001)]
    assert lower_hull([]) == []


def test_between_two_files_the_logarithm_is_interpolated() -> None:
    hull = [(4.0, 0.4), (6.0, 0.004)]
    assert at(hull, 5.0) == pytest.approx(0.04)
    assert at(hull, 4.0) == pytest.approx(0.4)
    assert at(hull, 9.0) == 0.004
    assert at(hull, 3.9) is None
    assert at([], 5.0) is None


points = st.lists(st.tuples(st.integers(20, 90), st.integers(1, 5000)), min_size=1, max_size=12)


@given(points)
def test_no_file_is_below_its_envelope(drawn: list[tuple[int, int]]) -> None:
    found = [(bits / 10, kl / 1000) for bits, kl in drawn]
    hull = lower_hull(found)
    for bits, kl in found:
        bound = at(hull, bits)
        assert bound is not None
        assert bound <= kl * (1 + 1e-6)
    # Convex in the logarithm: slopes only get flatter.
    slopes = [(math.log(b[1]) - math.log(a[1])) / (b[0] - a[0]) for a, b in pairwise(hull)]
    assert all(s < 0 for s in slopes)
    assert all(a < b + 1e-9 for a, b in pairwise(slopes))


def test_each_goal_is_judged_at_our_actual_bits() -> None:
    rows = [
        row(OURS, "4.5", 4.5, 0.1),
        row(OURS, "5", 5.0, 0.03),
        row(OURS, "4.25", 4.25, 0.15),
        row(OURS, "4.25 uniform", 4.24, 0.16),
        row(OURS, "8", 8.0, 0.003),
        row(THEIRS, "Q4_0 pure", 4.5, 0.2),
        row(THEIRS, "Q5_0 pure", 5.5, 0.05),
        row(THEIRS, "Q8_0", 8.5, 0.001),
    ]
    judged = {goal.goal.split(":")[0] + goal.goal[-12:]: goal for goal in goals(rows)}
    found = {goal.goal: (goal.met, goal.limit) for goal in goals(rows)}
    assert len(judged) == len(found) == 9
    assert found["4.5 bits: KL at most 0.6 x llama.cpp's envelope"] == (True, pytest.approx(0.12))
    assert found["5 bits: KL at most 0.6 x llama.cpp's envelope"] == (True, pytest.approx(0.06))
    assert found["5.5 bits: KL at most 0.6 x llama.cpp's envelope"] == (None, None)
    assert found["4.25 bits: KL below llama.cpp's best file of 0.5 bits more"] == (True, 0.2)
    assert found["3.5 bits: KL below llama.cpp's best file of 0.5 bits more"] == (None, None)
    assert found["8 bits: KL at most 2.5 x Q8_0"] == (False, pytest.approx(0.0025))
    assert found["8 bits: KL at most 0.01"] == (True, 0.01)
    assert found["4.25 bits: KL 10% below uniform widths of the same bytes"] == (False, pytest.approx(0.144))
    assert found["3.5 bits: KL 20% below uniform widths of the same bytes"] == (None, None)


def test_models_do_not_mix() -> None:
    other = [Row("n", THEIRS, "Q8_0", 1, 8.5, 1e-9, 0, 1, 1, "abc1234")]
    found = goals([row(OURS, "8", 8.0, 0.003), row(THEIRS, "Q8_0", 8.5, 0.002), *other])
    assert [goal.met for goal in found if "Q8_0" in goal.goal] == [True, None]
