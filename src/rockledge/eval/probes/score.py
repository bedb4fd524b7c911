"""Answers to probes by likelihood: the choice whose tokens, given the prompt, are the most probable.

The sum of the log-probabilities decides, not their mean: within a question the choices are of one kind and
nearly one length. No text is generated, so the result depends on no sampling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from rockledge.errors import UsageError
from rockledge.eval.intervals import Interval, share_interval
from rockledge.eval.probes.probe import Probe
from rockledge.eval.windows import Logits, Progress, log_softmax

_PADDED = 16  # tokens

Encode = Callable[[str], list[int]]
"""text -> token ids, beginning-of-text token included if the model has one."""


@dataclass(frozen=True)
class ProbeTokens:
    """Probes as a model reads them. `sequences` are all inputs, without repeats, padded at the end to a
    multiple of 16 tokens: attention is causal, so that changes nothing before, and a reference can run many
    sequences of one length together. `plans[i][c]` is where choice c of probe i is read: (sequence, first
    position, its tokens); the logits at that position predict the first of these tokens.
    """

    probes: tuple[Probe, ...]
    sequences: tuple[tuple[int, ...], ...]
    plans: tuple[tuple[tuple[int, int, tuple[int, ...]], ...], ...]


@dataclass(frozen=True)
class FamilyReport:
    """One family (or "all"). A flip is a probe with another answer than the reference's; `flips_lost` were
    right and are wrong, `flips_won` the reverse, the rest went from one wrong answer to another. `chance` is
    what guessing scores."""

    family: str
    probes: int
    chance: float
    accuracy: float
    accuracy_ci95: Interval
    reference_accuracy: float
    reference_accuracy_ci95: Interval
    flips: int
    flips_lost: int
    flips_won: int


def tokenize_probes(probes: Sequence[Probe], encode: Encode) -> ProbeTokens:
    """Finds the tokens of every choice: what follows the longest beginning shared with the prompt alone."""
    inputs: dict[tuple[int, ...], int] = {}
    plans = []
    for probe in probes:
        wholes = [encode(probe.prompt + choice) for choice in probe.choices]
        # Some tokenizers join the prompt's last token with what follows; then scoring starts one earlier,
        # for all choices alike.
        columns = zip(encode(probe.prompt), *wholes, strict=False)
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        if shared == 0 or any(len(whole) == shared for whole in wholes):
            raise UsageError(
                f"the tokenizer gives the choices {probe.choices} the same tokens; change the probe"
            )
        plans.append(
            tuple(
                (inputs.setdefault(tuple(whole[:-1]), len(inputs)), shared - 1, tuple(whole[shared:]))
                for whole in wholes
            )
        )
    padded = tuple(sequence + (0,) * (-len(sequence) % _PADDED) for sequence in inputs)
    return ProbeTokens(tuple(probes), padded, tuple(plans))


def answer_probes(model: Logits, tokens: ProbeTokens, progress: Progress | None = None) -> list[int]:
    """The index of the model's choice for every probe. One sequence of logits in memory at a time."""
    wanted: dict[int, list[tuple[int, int, int, tuple[int, ...]]]] = {}
    for i, plan in enumerate(tokens.plans):
        for c, (sequence, first, targets) in enumerate(plan):
            wanted.setdefault(sequence, []).append((i, c, first, targets))
    scores = [[0.0] * len(plan) for plan in tokens.plans]
    for done, (sequence, readers) in enumerate(wanted.items(), 1):
        logits = model(tokens.sequences[sequence])
        for i, c, first, targets in readers:
            rows = log_softmax(np.asarray(logits[first : first + len(targets)], dtype=np.float32))
            scores[i][c] = float(np.take_along_axis(rows, np.array(targets)[:, None], axis=1).sum())
        if progress is not None:
            progress(done, len(wanted))
    return [int(np.argmax(one)) for one in scores]


def report_probes(
    probes: Sequence[Probe], answers: Sequence[int], reference: Sequence[int]
) -> list[FamilyReport]:
    """One report a family in order of appearance, then one for "all"."""
    families = list(dict.fromkeys(probe.family for probe in probes))
    rows = [
        (p.family, p.answer, 1 / len(p.choices), a, r)
        for p, a, r in zip(probes, answers, reference, strict=True)
    ]
    return [
        *(_report(family, [row[1:] for row in rows if row[0] == family]) for family in families),
        _report("all", [row[1:] for row in rows]),
    ]


def _report(family: str, rows: list[tuple[int, float, int, int]]) -> FamilyReport:
    truth, chance, ours, theirs = (np.array(column) for column in zip(*rows, strict=True))
    right, expected = ours == truth, theirs == truth
    return FamilyReport(
        family=family,
        probes=len(rows),
        chance=float(chance.mean()),
        accuracy=float(right.mean()),
        accuracy_ci95=share_interval(int(right.sum()), len(rows)),
        reference_accuracy=float(expected.mean()),
        reference_accuracy_ci95=share_interval(int(expected.sum()), len(rows)),
        flips=int((ours != theirs).sum()),
        flips_lost=int((expected & ~right).sum()),
        flips_won=int((right & ~expected).sum()),
    )
