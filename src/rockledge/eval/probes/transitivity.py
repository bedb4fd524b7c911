"""Chains of three: who is first or last follows from two statements, given in either order."""

from random import Random

from rockledge.eval.probes.probe import Question
from rockledge.eval.probes.words import NAMES

_RELATIONS = (
    ("taller", "tallest", "shortest"),
    ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"),
)


def question(random: Random) -> Question:
    """Three people; all three are choices, so the middle one and the other end are the traps."""
    more, most, least = random.choice(_RELATIONS)
    first, middle, last = random.sample(NAMES, 3)
    facts = [f"{first} is {more} than {middle}.", f"{middle} is {more} than {last}."]
    random.shuffle(facts)
    word, right = random.choice(((most, first), (least, last)))
    others = [name for name in (first, middle, last) if name != right]
    return Question(f"{' '.join(facts)} The {word} is", tuple(f" {name}" for name in (right, *others)), 0)
