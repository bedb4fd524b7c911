"""Outputs of teachers that follow the form, almost do, or do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.question_answer.parsing import CUT_OFF, NO_FORM, Pair, parsed

ONE = [Pair("What sets the speed?", "S words set it.")]


@pytest.mark.parametrize(
    "output",
    [
        "Question: What sets the speed?\nAnswer: S words set it.",
        "  question:  What sets\nthe speed?\n\nanswer: S words set it.\n",
        "**Question:** What sets the speed?\n\n**Answer:** S words set it.",
        "Sure! Here it is:\n\n### Question\n: What sets the speed?\n### Answer: S words set it.",
        "1. Question: What sets the speed?\n   Answer: S words set it.",
        "Q: What sets the speed?\nA: S words set it.",
        "Q1: What sets the speed? Answer: S words set it.",
        "Question: What sets the speed? Answer: S words set it.",
        'Question: "What sets the speed?"\nAnswer: "S words set it."',
        "Frage: What sets the speed?\nAntwort: S words set it.",
        "问题：What sets the speed?\n答案：S words set it.",
        "<think>Question: no\nAnswer: no</think>\nQuestion: What sets the speed?\nAnswer: S words set it.",
        'Here:\n```json\n{"question": "What sets the speed?", "answer": "S words set it."}\n```',
        '[{"Question": "What sets the speed?", "Answer": "S words set it."}]',
        "Question: What sets the speed?\nAnswer: S words set it.\n\nI hope that this helps!",
        "Question: What sets the speed?\nAnswer: S words set it.\nPassage: spindle",
    ],
)
def test_forms_that_hold_a_pair(output: str) -> None:
    assert parsed(output, True) == (ONE, [])


@pytest.mark.parametrize(
    ("output", "ended", "reasons"),
    [
        ("The spindle turns.", True, [NO_FORM]),
        ("", True, [NO_FORM]),
        ("The spindle turns and", False, [CUT_OFF]),
        ("Question: What sets the speed?", True, [NO_FORM]),
        ("Question: What sets the", False, [CUT_OFF]),
        ("Question: What sets the speed?\nAnswer: S words set", False, [CUT_OFF]),
        ("Question: What sets the speed?\nAnswer:", True, [NO_FORM]),
        ("Question:\nAnswer: S words set it.", True, [NO_FORM]),
        ("<think>Question: a\nAnswer: b", False, [CUT_OFF]),
    ],
)
def test_what_is_no_pair_has_a_reason(output: str, ended: bool, reasons: list[str]) -> None:
    assert parsed(output, ended) == ([], reasons)


def test_whole_pairs_before_the_end_of_a_cut_output_are_taken() -> None:
    output = "Question: What sets the speed?\nAnswer: S words set it.\n\nQuestion: And what"
    assert parsed(output, False) == (ONE, [CUT_OFF])
    assert parsed(output.removesuffix("Question: And what") + "Also, it", False) == (ONE, [])


def test_lists_and_codes_belong_to_an_answer() -> None:
    answer = "Axis A: it turns.\n\n- A first step\n- B, answer it later"
    assert parsed(f"Question: How?\nAnswer: {answer}", True) == ([Pair("How?", answer)], [])


@given(st.text() | st.text("QuestionAnswer: \n*{}\"'?", max_size=200), st.booleans())
def test_any_output_gives_pairs_or_reasons(output: str, ended: bool) -> None:
    pairs, reasons = parsed(output, ended)
    assert pairs or reasons
    assert all(pair.question and pair.answer for pair in pairs)
