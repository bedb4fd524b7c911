"""Which messages are dropped: whole turns, oldest first, in blocks that stay the same from turn to turn."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.serve.conversation.messages import Message
from rockledge.serve.conversation.truncation import Fitted, fit, prompt_room
from rockledge.serve.errors import ApiError, context_length_exceeded

Json = dict[str, Any]


def message(role: str, content: str = "", calls: int = 0) -> Message:
    function = {"function": {"name": "f", "arguments": {}}}
    return Message.model_validate({"role": role, "content": content, "tool_calls": [function] * calls})


def said(messages: Sequence[Message]) -> str:
    return "".join(f"<{m.role}>{m.content}" for m in messages)


class Template:
    """One token a character; counts how much it had to render."""

    def __init__(self, most: int | None = None) -> None:
        self.most, self.lengths = most, list[int]()

    def __call__(self, messages: list[Message]) -> tuple[str, list[int]]:
        text = said(messages)
        self.lengths.append(len(text))
        if self.most is not None and len(text) > self.most:
            raise context_length_exceeded(len(text), self.most, "messages")
        return text, list(text.encode())


def fitted(messages: Sequence[Message], room: int, template: Template | None = None) -> Fitted:
    return fit(messages, template or Template(), len, room)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """System text, then turns with calls and results."""
    texts = st.text("ab", max_size=30)
    found = [message("system", draw(texts))] if draw(st.booleans()) else []
    if draw(st.booleans()):
        found.append(message("assistant", draw(texts)))
    for _ in range(draw(st.integers(1, 8))):
        found.append(message("user", draw(texts)))
        for _ in range(draw(st.integers(0, 2))):
            calls = draw(st.integers(1, 2))
            found.append(message("assistant", calls=calls))
            if draw(st.integers(0, 4)) == 0:
                found.append(message("user", draw(texts)))
            found += [message("tool", draw(texts)) for _ in range(calls)]
        if draw(st.booleans()):
            found.append(message("assistant", draw(texts)))
        if draw(st.integers(0, 5)) == 0:
            found.append(message("system", draw(texts)))
    return found


@given(conversations(), st.integers(1, 400))
def test_what_is_kept_is_system_text_and_the_newest_turns_whole(found: list[Message], room: int) -> None:
    made = fitted(found, room)
    calls = [i for i, m in enumerate(found) if m.tool_calls]
    results = [(max(c for c in calls if c < i), i) for i, m in enumerate(found) if m.role == "tool"]
    users = (i for i, m in enumerate(found) if m.role == "user")
    turns = [i for i in users if not any(call < i < result for call, result in results)]
    first = next(i for i, m in enumerate(found) if m.role not in ("system", "developer"))
    starts = sorted({first, *turns})
    allowed = [said([m for i, m in enumerate(found) if i >= s or m.role == "system"]) for s in starts]
    assert made.text in (said(found), *allowed)
    if len(said(found)) <= room:
        assert made.dropped == 0
    elif any(len(text) <= room for text in allowed):
        assert len(made.ids) <= room
    else:
        assert made.text == allowed[-1]


def turns(count: int, size: int = 20) -> list[Message]:
    found = [message("system", "s" * 20)]
    for number in range(count):
        found += [message("user", f"{number:04}" * (size // 4)), message("assistant", "a" * size)]
    return [*found, message("user", "now")]


@pytest.mark.parametrize("size", [4, 20])
def test_what_is_dropped_stays_the_same_for_several_turns(size: int) -> None:
    room, dropped, lengths = 1000, [], []
    for count in range(200):
        made = fitted(turns(count, size), room)
        assert len(made.ids) <= room
        dropped.append(made.dropped)
        lengths.append(len(made.ids))
    full = next(number for number, count in enumerate(dropped) if count)
    changes = [number for number in range(full + 1, 200) if dropped[number] != dropped[number - 1]]
    # A block is half of what is left for turns of 2 messages with their markup.
    block = (room - 28) / 2 / (2 * size + 17)
    assert all(abs(after - before - block) < 2 for before, after in itertools.pairwise(changes))
    assert lengths[full - 1] > 0.9 * room
    assert min(lengths[full:]) > 0.45 * room


@pytest.mark.parametrize("size", [4, 400])
def test_ten_thousand_messages_need_few_renderings(size: int) -> None:
    found, template, room = turns(5000, size), Template(), 2000
    began = time.process_time()
    made = fit(found, template, lambda text: len(text) // 3, room)  # measured three times too short
    assert time.process_time() - began < 5
    assert len(made.ids) <= room
    assert len(template.lengths) <= 16
    assert sum(template.lengths) < 40 * room
    assert made.text.endswith("<user>now")


def test_what_cannot_be_dropped_is_rendered_though_it_does_not_fit() -> None:
    found = [*turns(3), message("assistant", calls=1), message("tool", "r" * 200)]
    assert fitted(found, 100).text == said([found[0], *found[-3:]])
    with pytest.raises(ApiError, match="maximum context length"):
        fitted(found, 100, Template(most=110))


def test_templates_that_refuse_are_heard() -> None:
    def refusing(_: list[Message]) -> tuple[str, list[int]]:
        raise ApiError("the chat template refuses these messages")

    with pytest.raises(ApiError, match="refuses"):
        fit(turns(50), refusing, len, 100)


def test_some_of_the_context_is_kept_for_the_answer() -> None:
    assert prompt_room(4096, None) == 3072
    assert prompt_room(4096, 100) == 3996
    assert prompt_room(4096, 4000) == 2048
    assert prompt_room(4, 0) == 3
