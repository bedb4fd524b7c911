"""How many things are in a list, or how often one of them is."""

from random import Random

from rockledge.eval.probes.probe import Question, distinct
from rockledge.eval.probes.words import ANIMALS

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def question(random: Random) -> Question:
    """Three to seven animals, some of them twice; the answer is a number in words."""
    kinds = random.sample(ANIMALS, 3)
    animals = random.choices(kinds, k=random.randint(3, 7))
    listed = ", ".join(animals)
    if random.random() < 0.5:
        right, text = len(animals), f"Animals in the list {listed}:"
    else:
        kind = random.choice(sorted(set(animals)))
        right, text = animals.count(kind), f"How often {kind} is in the list {listed}:"
    near = [n for step in (1, -1, 2, -2, 3) if 1 <= (n := right + step) <= len(_NUMBERS)]
    words = [f" {_NUMBERS[n - 1]}" for n in (right, *near)]
    return Question(text, distinct(words[0], words[1:], 4), 0)
