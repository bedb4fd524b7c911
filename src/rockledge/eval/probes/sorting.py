"""Short lists in order: numbers by size, words by the alphabet."""

from random import Random

from rockledge.eval.probes.probe import Question
from rockledge.eval.probes.words import FRUITS


def question(random: Random) -> Question:
    """Four things; all choices have the same things in another order, so likelihoods can be compared."""
    if random.random() < 0.5:
        things = [str(n) for n in random.sample(range(10, 100), 4)]
        ordered, how = sorted(things, key=int), "from small to large"
    else:
        things = random.sample(FRUITS, 4)
        ordered, how = sorted(things), "by the alphabet"
    swaps = ((0, 1), (1, 2), (2, 3))
    wrong = []
    for i, j in random.sample(swaps, 2):
        other = list(ordered)
        other[i], other[j] = other[j], other[i]
        wrong.append(other)
    choices = tuple(" " + ", ".join(order) for order in (ordered, *wrong))
    return Question(f"{', '.join(things)} sorted {how}:", choices, 0)
