"""The split: what is held out shares nothing with what is learnt."""

import random

from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.documents import Document
from rockledge.distillation.question_answer.apart import belonging_together, held_out_groups


def _text(seed: int, words: int = 300) -> str:
    generator = random.Random(seed)
    return " ".join(f"w{generator.randrange(10_000)}" for _ in range(words))


def test_a_chapter_and_its_book_and_two_versions_belong_together() -> None:
    chapters = [_text(seed) for seed in range(4)]
    version = chapters[3].split()
    version[100:110] = ["changed"] * 10
    documents = [
        chapters[0],
        "\n\n".join(chapters[:3]),
        _text(9),
        chapters[3],
        " ".join(version),
        "short",
        "other",
    ]
    groups = belonging_together([Document(str(i), text) for i, text in enumerate(documents)])
    assert groups == [[0, 1], [2], [3, 4], [5], [6]]


def test_what_all_pages_repeat_does_not_join_them_but_copies_are_joined() -> None:
    footer = _text(99, 60)
    pages = [Document(str(i), f"{_text(i)} {footer}") for i in range(50)]
    assert belonging_together(pages) == [[i] for i in range(50)]
    copies = [Document(str(i), f"{footer * 5} page {i}") for i in range(50)]
    assert belonging_together(copies) == [list(range(50))]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=20), st.floats(0.01, 0.5), st.randoms())
def test_whole_groups_of_about_the_share_are_held_out(
    sizes: list[int], share: float, order: random.Random
) -> None:
    documents = [Document(str(i), f"text {i}") for i in range(len(sizes))]
    groups = [[i, i + 1] if i + 1 < len(sizes) else [i] for i in range(0, len(sizes), 2)]
    held = held_out_groups(groups, documents, sizes, share)
    usable = [group for group in groups if sum(sizes[i] for i in group)]
    assert all(set(group) <= held or not set(group) & held for group in groups)
    if len(usable) < 2:
        assert not held
        return
    weights = [sum(sizes[i] for i in group) for group in usable]
    amount = sum(sizes[i] for i in held)
    assert 0 < amount <= max(share * sum(weights), min(weights))
    assert amount < sum(weights)
    order.shuffle(groups)
    assert held_out_groups(groups, documents, sizes, share) == held


def test_nothing_is_held_out_where_nothing_is_wanted() -> None:
    documents = [Document("a", "a"), Document("b", "b")]
    assert held_out_groups([[0], [1]], documents, [1, 1], 0.0) == set()
