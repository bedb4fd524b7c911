"""Every family's answers, found again by other means: parsing the question and working it out."""

import re
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from rockledge.eval.probes.families import FAMILIES, all_probes
from rockledge.eval.probes.probe import Question, make_probes

NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
}  # fmt: skip
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]  # fmt: skip
IN_BASE_UNITS = {
    "seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800, "months": 1, "years": 12,
    "grams": 1, "kilograms": 1000, "centimetres": 1, "metres": 100, "kilometres": 100000,
}  # fmt: skip


def arithmetic(text: str) -> str:
    return str(eval(text.removesuffix("=")))


def comparison(text: str) -> str:
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    return str(max(numbers) if "larger" in text else min(numbers))


def transitivity(text: str) -> str:
    above = dict(re.findall(r"(\w+) is \w+ than (\w+)", text))
    order = [next(name for name in above if name not in above.values())]
    while order[-1] in above:
        order.append(above[order[-1]])
    return order[-1 if re.search("shortest|youngest|slowest", text) else 0]


def negation(text: str) -> str:
    first, second = re.findall(r"either (\w+) or (\w+)\.", text)[0]
    denied = re.findall(rf"(?:is not|that it is) ({first}|{second})", text)[0]
    return str(second if denied == first else first)


def counting(text: str) -> str:
    animals = text.removesuffix(":").split(" list ")[1].split(", ")
    asked = re.match(r"How often (\w+)", text)
    count = animals.count(asked[1]) if asked else len(animals)
    return next(word for word, n in NUMBERS.items() if n == count)


def sorting(text: str) -> str:
    things = text.split(" sorted ")[0].split(", ")
    assert len(things) == 4
    ordered = sorted(things, key=int) if "small" in text else sorted(things)
    assert all(a != b for a, b in pairwise(ordered))
    return ", ".join(ordered)


def dates_and_units(text: str) -> str:
    conversion = re.fullmatch(r"(\d+) (\w+) are as many (\w+) as", text)
    if conversion:
        value = int(conversion[1]) * IN_BASE_UNITS[conversion[2]] / IN_BASE_UNITS[conversion[3]]
        return str(int(value))
    word, unit, direction, start = re.fullmatch(r"(\w+) (\w+?)s? (after|before) (\w+) is", text).groups()  # type: ignore[union-attr]
    cycle = {"day": DAYS, "month": MONTHS}[unit]
    step = NUMBERS[word.lower()] * (1 if direction == "after" else -1)
    return cycle[(cycle.index(start) + step) % len(cycle)]


SOLVERS: dict[str, Callable[[str], str]] = {
    name: globals()[name]
    for name in (
        "arithmetic",
        "comparison",
        "transitivity",
        "negation",
        "counting",
        "sorting",
        "dates_and_units",
    )
}


def test_every_family_has_a_solver() -> None:
    assert set(SOLVERS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_choices_differ(family: str) -> None:
    random = Random(11)
    for _ in range(300):
        question = FAMILIES[family](random)
        assert question.choices[question.answer] == " " + SOLVERS[family](question.text)
        assert len(set(question.choices)) == len(question.choices) >= 2
        assert all(choice.startswith(" ") for choice in question.choices)


def test_same_seed_same_probes_other_seed_others() -> None:
    assert all_probes(5, seed=3) == all_probes(5, seed=3)
    first, second = ({p.prompt for p in all_probes(5, seed=s)} for s in (3, 4))
    assert not first & second
    # A family's probes do not depend on which others are asked for, nor on how many.
    assert all_probes(9, seed=3)[:5] == all_probes(5, seed=3)[:5]


def test_no_question_is_asked_twice_or_answered_in_an_example() -> None:
    for family, make in FAMILIES.items():
        probes = make_probes(family, make, 60, 0, examples=3)
        lines = [probe.prompt.split("\n") for probe in probes]
        assert all(len(line) == 4 for line in lines)
        assert len({line[-1] for line in lines}) == 60
        shown = lines[0][:3]
        assert not any(example.startswith(line[-1] + " ") for line in lines for example in shown)


def test_no_place_is_favoured() -> None:
    def question(random: Random) -> Question:
        return Question(f"Q{random.random()}", (" right", " wrong"), 0)

    first = sum(probe.answer == 0 for probe in make_probes("any", question, 400, 0, examples=0))
    assert 150 < first < 250
