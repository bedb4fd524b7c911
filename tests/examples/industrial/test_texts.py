"""The texts of the example: documents are runs of pages, and held-out ones are not learnt."""

from examples.industrial.texts import split


def test_held_out_documents_are_one_in_twelve_and_none_is_learnt() -> None:
    runs = [f"Page {n}. " + "A machine turns. " * 40 for n in range(48)]
    learn, held_out = split(runs)
    assert len(held_out) == 4
    assert not set(learn) & set(held_out)
    assert sorted(learn + held_out) == sorted(runs)


def test_a_run_that_is_said_twice_is_not_on_both_sides() -> None:
    runs = [f"Page {n % 5}. " + "A machine turns. " * 40 for n in range(24)]
    learn, held_out = split(runs)
    assert held_out
    assert not set(learn) & set(held_out)


def test_lists_of_contents_and_empty_pages_are_left_out() -> None:
    contents = "Chapter . . . . . . 5\n" * 40
    learn, held_out = split([contents, "", "short"])
    assert (learn, held_out) == ([], [])
