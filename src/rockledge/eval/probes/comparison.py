"""Which of two numbers is larger or smaller."""

from random import Random

from rockledge.eval.probes.probe import Question


def question(random: Random) -> Question:
    """Two numbers of the same length, so that spelling gives nothing away."""
    low, high = random.choice(((10, 99), (100, 999)))
    first, second = random.sample(range(low, high + 1), 2)
    larger = random.random() < 0.5
    word = "larger" if larger else "smaller"
    right = max(first, second) if larger else min(first, second)
    wrong = first + second - right
    return Question(f"The {word} of {first} and {second} is", (f" {right}", f" {wrong}"), 0)
