"""What one probe is, and how a family's questions become prompts: solved examples, then the question."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Question:
    """One question in words. `choices` begin with a space where they follow a word; all are different."""

    text: str
    choices: tuple[str, ...]
    answer: int


QuestionMaker = Callable[[Random], Question]
"""Makes one question of a family from a source of randomness; equal sources make equal questions."""


@dataclass(frozen=True)
class Probe:
    """A prompt whose likeliest continuation among `choices` should be `choices[answer]`."""

    family: str
    prompt: str
    choices: tuple[str, ...]
    answer: int


def make_probes(family: str, make: QuestionMaker, count: int, seed: int, examples: int) -> list[Probe]:
    """`count` probes of one family, each after `examples` other solved questions; no question twice.

    The answers' places among the choices are shuffled, so a model that prefers a place gains nothing.
    """
    random = Random(f"{family} {seed}")
    used: set[str] = set()

    def fresh() -> Question:
        while True:
            question = make(random)
            if question.text not in used:
                used.add(question.text)
                return _shuffled(question, random)

    solved = [fresh() for _ in range(examples)]
    shown = "".join(f"{question.text}{question.choices[question.answer]}\n" for question in solved)
    probes = []
    for _ in range(count):
        question = fresh()
        probes.append(Probe(family, shown + question.text, question.choices, question.answer))
    return probes


def distinct(answer: str, others: list[str], count: int) -> tuple[str, ...]:
    """The answer and the first `count - 1` of `others` that are neither it nor each other."""
    return tuple(dict.fromkeys([answer, *others]))[:count]


def _shuffled(question: Question, random: Random) -> Question:
    right = question.choices[question.answer]
    choices = list(question.choices)
    random.shuffle(choices)
    return Question(question.text, tuple(choices), choices.index(right))
