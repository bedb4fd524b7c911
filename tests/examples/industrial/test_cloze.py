"""The domain cloze: terms are the domain's, and wrong choices could stand in the right one's place."""

from examples.industrial.cloze import CHOICES, items, terms_of

_TERMS = ("spindle", "gantry", "toolpath", "backlash", "coolant", "probe")
_DOMAIN = [f"The {term} of this machine turns slowly when the operator asks for it." for term in _TERMS * 12]
_GENERAL = ["The cat of this house sleeps slowly when the old man asks for it, and the operator turns."] * 60
_HELD_OUT = [
    f"In case {n} the {term} of this machine turns faster than the others do. It is a list: 1, 2."
    for n, term in enumerate(_TERMS)
]


def test_terms_are_words_that_the_domain_has_and_general_prose_has_not() -> None:
    terms = terms_of(_DOMAIN, _GENERAL)
    assert set(_TERMS) <= terms.counts.keys()
    assert not {"The", "this", "operator", "slowly"} & terms.counts.keys()


def test_an_item_reads_as_the_sentence_did_with_the_right_choice() -> None:
    found = items(_HELD_OUT, terms_of(_DOMAIN, _GENERAL), 100)
    assert len(found) == len(_TERMS)
    for item in found:
        assert len(item.choices) == CHOICES == len(set(item.choices))
        said = item.prompt + item.choices[item.answer]
        assert any(said in text for text in _HELD_OUT)
        wrong = [choice for n, choice in enumerate(item.choices) if n != item.answer]
        assert not any(item.prompt + choice in text for choice in wrong for text in _HELD_OUT)
        assert len({choice.split(" ", 2)[2] for choice in item.choices}) == 1  # the same end


def test_items_are_the_same_for_a_seed_and_no_more_than_asked_for() -> None:
    terms = terms_of(_DOMAIN, _GENERAL)
    assert items(_HELD_OUT, terms, 3, seed=1) == items(_HELD_OUT[::-1], terms, 3, seed=1)
    assert len(items(_HELD_OUT, terms, 3)) == 3


def test_a_term_that_is_said_twice_or_lacks_likes_makes_no_item() -> None:
    terms = terms_of(_DOMAIN, _GENERAL)
    twice = "In any case the spindle of this spindle turns faster than the others do."
    assert items([twice], terms, 10) == []
    few = terms_of([text for text in _DOMAIN if "spindle" in text or "probe" in text], _GENERAL)
    assert items(_HELD_OUT[:1], few, 10) == []
