"""Questions that were asked before, against the definition of Jaccard similarity."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.question_answer.near_duplicates import ALIKE, SAME, AskedQuestions


def test_questions_that_are_the_same_or_almost() -> None:
    asked = AskedQuestions()
    first = "Which parameter limits the largest velocity of every joint during homing?"
    assert asked.refused(first) is None
    assert asked.refused(first.upper().replace("?", " ?")) == SAME
    assert asked.refused(first.replace("Which", "What")) == ALIKE
    assert asked.refused("Which parameter limits the acceleration of every joint during jogging?") is None


def test_questions_about_two_values_of_one_thing_are_two() -> None:
    asked = AskedQuestions()
    for number in ("G54", "G55", "parameter 5161", "parameter 5162"):
        assert (
            asked.refused(f"Where does the machine keep the workpiece offset of {number} permanently?")
            is None
        )


WORDS = [
    "spindle",
    "velocity",
    "homing",
    "joint",
    "gateway",
    "tooling",
    "limits",
    "machine",
    "offset",
    "probe",
]


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), max_size=12))
def test_as_comparing_all_of_them_would_do(questions: list[list[str]]) -> None:
    asked, taken, texts = AskedQuestions(), list[set[str]](), set[str]()
    for words in questions:
        text, own = " ".join(words), {word[:6] for word in words}
        alike = any(len(own & other) >= 0.8 * len(own | other) for other in taken)
        expected = SAME if text in texts else ALIKE if alike else None
        assert asked.refused(text) == expected
        if expected is None:
            taken.append(own)
            texts.add(text)
