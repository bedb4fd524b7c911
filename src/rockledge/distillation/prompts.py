"""What a student is given to answer on its own: the part of a conversation before each answer, and the first
part of a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rockledge.distillation.learnt_tokens import Tokens
from rockledge.errors import UsageError


@dataclass(frozen=True)
class Prompts:
    """Token ids of prompts of `train` and `held_out`, in the order of the documents; `notes` are sentences
    for the report."""

    train: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()


def prompts_of(documents: Sequence[Tokens], held_out: Sequence[Tokens], length: int, answer: int) -> Prompts:
    """Prompts that leave room for `answer` of the `length` tokens of a sequence.

    A text is cut into sequences, and the first half of each is a prompt, or as much of it as there is room
    for. A conversation whose beginning is longer is left out: cut, it would not be one.

    Raises:
        UsageError: no document has a prompt with so much room.
    """
    most = length - answer
    train, kept = ([p for one in part for p in _prompts(one, length, most)] for part in (documents, held_out))
    fit = [tuple(tuple(p) for p in part if len(p) <= most) for part in (train, kept)]
    longer = len(train) - len(fit[0])
    if not fit[0]:
        raise UsageError(
            f"no prompt of the data leaves room for {answer} tokens of an answer in a sequence of {length}; "
            "choose a smaller --on-policy-answer or a larger --sequence"
        )
    note = f"{longer} of {len(train)} prompts are longer than {most} tokens and were not answered."
    return Prompts(fit[0], fit[1], (note,) if longer else ())


def _prompts(document: Tokens, length: int, most: int) -> Iterator[list[int]]:
    ids, learnt = document.ids, document.learnt
    if learnt[1:].all():  # a text
        for first in range(0, len(ids), length):
            part = ids[first : first + length]
            if len(part) > 1:
                yield part[: min(most, len(part) // 2)].tolist()
        return
    begins = np.flatnonzero(learnt & ~np.roll(learnt, 1))
    yield from (ids[:place].tolist() for place in begins)
