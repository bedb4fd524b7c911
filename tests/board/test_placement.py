"""The decision between ways: never one that costs more by its own figures, in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.placement import CPU, NPU, Way, place

ways = st.lists(
    st.builds(Way, st.sampled_from([CPU, NPU]), st.floats(0, 1e6), st.sampled_from(["", "3 cores"])),
    min_size=2,
    max_size=6,
)


@given(ways)
def test_nothing_is_faster_than_the_choice_and_only_the_choice_than_the_runner_up(found: list[Way]) -> None:
    decided = place(found)
    fastest, second, *_ = sorted(way.seconds for way in found)
    assert (decided.choice.seconds, decided.runner_up.seconds) == (fastest, second)
    assert decided.costs >= 0
    assert decided.choice in found
    assert decided.runner_up in found


@given(ways, st.randoms())
def test_the_order_matters_for_ties_alone(found: list[Way], random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert place(shuffled).choice.seconds == place(found).choice.seconds


def test_a_tie_is_the_first_ones() -> None:
    assert place([Way(CPU, 1.0), Way(NPU, 1.0)]).choice.place == CPU


def test_names_say_the_form_where_there_is_one() -> None:
    assert (Way(CPU, 1.0).name, Way(NPU, 1.0, "2 cores").name) == ("CPU", "NPU, 2 cores")
