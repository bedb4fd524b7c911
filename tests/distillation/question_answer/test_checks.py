"""Which pairs are taken: each rule by a pair that breaks it alone."""

import pytest

from rockledge.distillation.question_answer.checks import COPY, DEPENDS, EMPTY, STRANGE, UNGROUNDED, refused
from rockledge.distillation.question_answer.parsing import Pair

PASSAGE = """The spindle starts with M3 and stops with M5. Its speed, in revolutions per minute, is set by an
S word: S1200 asks for 1,200 turns a minute. The limit of the drive is 24000.0 rpm."""


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        ("How is the spindle started?", "M3 starts the spindle.", None),
        ("How fast may the spindle turn?", "The drive's limit is 24000 rpm.", None),
        ("What does S1200 ask for?", "It asks for 1200 revolutions per minute.", None),
        ("Which code stops the spindle?", "M5", None),
        ("How is the spindle started?", "M4 starts the spindle.", UNGROUNDED),
        ("How fast may the spindle turn?", "The drive's limit is 18000 rpm.", UNGROUNDED),
        ("How is the spindle started?", "Press the green button at the front of your machine.", UNGROUNDED),
        ("What starts the spindle?", "The spindle starts.", COPY),
        ("What is the capital of France?", "M3 starts the spindle.", STRANGE),
        ("What does the passage say about the spindle?", "M3 starts the spindle.", DEPENDS),
        ("According to the author, what starts the spindle?", "M3 starts the spindle.", DEPENDS),
        ("...", "M3 starts the spindle.", EMPTY),
        ("How is the spindle started?", "Yes.", EMPTY),
        (f"Does it say: {PASSAGE * 3}?", "M3 starts the spindle.", EMPTY),
    ],
)
def test_rules(question: str, answer: str, why: str | None) -> None:
    assert refused(Pair(question, answer), "Spindle", PASSAGE) == why


def test_scripts_without_spaces() -> None:
    passage = "主轴转速由S代码设定。启动主轴使用M3指令，停止主轴使用M5指令。"
    assert refused(Pair("如何启动主轴？", "使用M3指令启动主轴。"), "", passage) is None
    assert refused(Pair("如何启动主轴？", "请按下控制面板上的绿色按钮。"), "", passage) == UNGROUNDED
