"""Likelihood scoring against models whose answers are known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from rockledge.errors import UsageError
from rockledge.eval.probes.families import all_probes
from rockledge.eval.probes.probe import Probe
from rockledge.eval.probes.score import answer_probes, report_probes, tokenize_probes

BYTES = 128


def spell(text: str) -> list[int]:
    return list(text.encode())


def oracle(wanted: Sequence[str]) -> object:
    """A byte model that follows the first of `wanted` it is inside of; elsewhere all bytes are as likely."""
    codes = [spell(text) for text in wanted]

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        logits = np.zeros((len(tokens), BYTES), np.float32)
        for code in codes:
            known = 0
            while known < min(len(code), len(tokens)) and code[known] == tokens[known]:
                known += 1
            for position in range(min(known, len(code) - 1)):
                logits[position, code[position + 1]] = 5
        return logits

    return model


def test_a_model_that_knows_the_answers_is_right_and_one_that_knows_others_flips() -> None:
    probes = all_probes(6, seed=1)
    tokens = tokenize_probes(probes, spell)
    knowing = oracle([p.prompt + p.choices[p.answer] for p in probes])
    wrong = oracle([p.prompt + p.choices[p.answer - 1] for p in probes])
    right_answers = answer_probes(knowing, tokens)  # type: ignore[arg-type]
    wrong_answers = answer_probes(wrong, tokens)  # type: ignore[arg-type]
    assert right_answers == [p.answer for p in probes]
    reports = {r.family: r for r in report_probes(probes, wrong_answers, right_answers)}
    assert len(reports) == 8
    everything = reports["all"]
    assert (everything.accuracy, everything.reference_accuracy) == (0, 1)
    assert (everything.flips, everything.flips_lost, everything.flips_won) == (42, 42, 0)
    assert everything.probes == sum(r.probes for name, r in reports.items() if name != "all") == 42
    assert reports["comparison"].chance == 0.5
    assert report_probes(probes, right_answers, right_answers)[-1].flips == 0


def test_the_choice_of_the_larger_product_of_probabilities_wins() -> None:
    """p(a) = 0.5, p(b) = 0.3, p(c) = 0.2 at every position: "aa" 0.25 < "b" 0.3, and "a" before both."""
    row = np.full(BYTES, -30, np.float32)
    for letter, p in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
        row[ord(letter)] = math.log(p)
    probes = [Probe("x", "?", ("aa", "b"), 0), Probe("x", "?", ("cc", "a", "b"), 1)]
    tokens = tokenize_probes(probes, spell)
    assert answer_probes(lambda t: np.tile(row, (len(t), 1)), tokens) == [1, 1]
    # One-token choices need the prompt alone; lengths are padded.
    assert {len(sequence) for sequence in tokens.sequences} == {16}
    assert len(tokens.sequences) == 3


def test_half_right() -> None:
    probes = [Probe("x", "?", ("a", "b"), 0)] * 4
    report = report_probes(probes, [0, 0, 1, 1], [0, 1, 0, 1])[0]
    assert (report.accuracy, report.reference_accuracy) == (0.5, 0.5)
    assert (report.flips, report.flips_lost, report.flips_won) == (2, 1, 1)
    assert report.accuracy_ci95[0] < 0.5 < report.accuracy_ci95[1]


def test_a_tokenizer_that_joins_prompt_and_choice_is_followed() -> None:
    """ "=" and a digit after it are one token (200 + digit): scoring starts before that token."""

    def joining(text: str) -> list[int]:
        result: list[int] = []
        for byte in text.encode():
            if result and result[-1] == ord("=") and chr(byte).isdigit():
                result[-1] = 200 + int(chr(byte))
            else:
                result.append(byte)
        return result

    tokens = tokenize_probes([Probe("x", "2=", ("7", "8"), 1)], joining)
    assert tokens.plans == (((0, 0, (207,)), (0, 0, (208,))),)
    logits = np.zeros((1, 210), np.float32)
    logits[0, 208] = 1
    assert answer_probes(lambda t: logits, tokens) == [1]


def test_choices_that_read_alike_are_refused() -> None:
    with pytest.raises(UsageError, match="same tokens"):
        tokenize_probes([Probe("x", "ab", ("c", "d"), 0)], lambda text: spell(text)[:2])
