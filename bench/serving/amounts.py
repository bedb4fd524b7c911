"""How much each measure asks for, and what it gives back."""

from collections.abc import Iterable
from dataclasses import dataclass

Figures = dict[str, float]


@dataclass(frozen=True)
class Amounts:
    """How much each measure asks for: tokens, requests, seconds."""

    prompt: int = 128
    answer: int = 128
    rounds: int = 1  # requests of every stream, one after another
    system: int = 1000
    visitors: int = 50  # requests with that system prompt
    question: int = 32  # tokens of each that only it has
    history: int = 3000
    turn_words: int = 60  # of the newest message of a conversation
    long_prompt: int = 4000
    long_answer: int = 400  # of streams beside which that arrives
    undisturbed_s: float = 4.0
    patience_s: float = 60.0  # for streams that should run at the same time
    singles: int = 40
    body_bytes: int = 16 << 20
    bodies: int = 3
    questions: int = 100  # at least, so that a server which refuses at once has a 99th percentile
    crowd: int = 100
    alternations: int = 5  # of free and constrained answers
    step_budget_s: float = 0.1  # how long a step of ours may take while others wait


QUICK = Amounts(
    prompt=16,
    answer=12,
    rounds=1,
    system=128,
    visitors=4,
    question=8,
    history=192,
    turn_words=4,
    long_prompt=160,
    long_answer=60,
    undisturbed_s=0.5,
    patience_s=20,
    singles=5,
    body_bytes=1 << 18,
    bodies=1,
    questions=5,
    crowd=6,
    alternations=1,
)


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
