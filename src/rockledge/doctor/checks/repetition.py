"""Answers that repeat themselves, where the float model would not go on like that."""

from collections.abc import Iterator, Sequence

import torch

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding

_LONGEST = 6  # tokens of a repeated phrase
_TIMES = 3
_UNLIKELY = 1.0  # nats, on average, by which the float model finds a loop's tokens less likely than its own


def check_repetition(case: Case) -> Iterator[Finding]:
    """Of the greedy answers of the runtime."""
    loops = []
    for part, prompt, sequence in zip(case.text.parts(), case.text.prompts, case.text.sequences, strict=True):
        length = loop(sequence[prompt:])
        if length:
            loops.append((part.stop - 1 - length, part.stop - 1, sequence[-length:]))
    if not loops:
        return
    said = f"{len(loops)} of {len(case.text.sequences)} answers end in a phrase that repeats"
    if case.runs.reference is None:
        yield _finding("remark", said, "compare them with the float model: give --reference")
        return
    away = [
        unlikelihood(case.runs.reference[first:last], torch.tensor(tokens)) for first, last, tokens in loops
    ]
    led_away = sum(one > _UNLIKELY for one in away)
    if led_away:
        yield _finding(
            "alarm",
            f"{said}; in {led_away} of them the float model would have gone on differently",
            "mend what is found beside this: it is a consequence",
        )


def unlikelihood(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """By how many nats `tokens` int64 [n] are less likely than the likeliest, on average, by `logits` fp32
    [n, vocab]."""
    own = logits.gather(1, tokens[:, None])[:, 0]
    return float((logits.amax(1) - own).mean())


def loop(tokens: Sequence[int]) -> int:
    """How many of the last tokens repeat one phrase of up to six, at least three times; 0 for none."""
    for phrase in range(1, _LONGEST + 1):
        count = phrase
        while count < len(tokens) and tokens[-count - 1] == tokens[-count - 1 + phrase]:
            count += 1
        if count >= max(_TIMES * phrase, 2 * _LONGEST):
            return count
    return 0


def _finding(severity: str, cause: str, mend: str) -> Finding:
    return Finding(
        check="repetition",
        place="answers",
        severity="alarm" if severity == "alarm" else "remark",
        cause=cause,
        mend=mend,
    )
