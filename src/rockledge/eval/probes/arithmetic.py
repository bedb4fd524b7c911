"""Sums, differences and small products; wrong choices are near misses."""

from random import Random

from rockledge.eval.probes.probe import Question, distinct


def question(random: Random) -> Question:
    """ "24 + 13 =" and four two-digit numbers."""
    sign = random.choice("+-*")
    if sign == "*":
        a, b = random.randint(2, 9), random.randint(2, 9)
        result = a * b
    else:
        a, b = random.randint(21, 49), random.randint(2, 19)
        result = a + b if sign == "+" else a - b
    near = [result + step for step in random.sample((-10, -2, -1, 1, 2, 10), 6)]
    return Question(f"{a} {sign} {b} =", distinct(f" {result}", [f" {n}" for n in near if n > 0], 4), 0)
