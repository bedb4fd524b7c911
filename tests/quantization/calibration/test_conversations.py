"""Conversations of the calibration text: fitted to what templates accept, never the end of a run."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.oracle import CASES, small_files

from rockledge.model.chat import ChatTemplate
from rockledge.quantization.calibration.conversations import ConversationRenderer, folded_system
from rockledge.quantization.calibration.texts import default_conversations

SYSTEM, USER, ANSWER = (
    {"role": role, "content": content}
    for role, content in (("system", "be brief"), ("user", "what is it"), ("assistant", "a pipe"))
)
TURNS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
# Refusals that published templates have, in their own words.
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}" + TURNS
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TURNS
)
NO_TOOL = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role ' ~ m.role) }}{% endif %}{% endfor %}" + TURNS
)
NEEDS_TOOLS = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}" + TURNS
PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
)
MERGED = "be brief\n\nwhat is it"


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (TURNS, [SYSTEM, USER], "[system] be brief[user] what is it"),
        (NO_SYSTEM, [USER, ANSWER], "[user] what is it[assistant] a pipe"),
        (NO_SYSTEM, [SYSTEM, USER, ANSWER], "[user] be brief\n\nwhat is it[assistant] a pipe"),
        (ALTERNATING, [SYSTEM, USER, ANSWER, USER], f"[user] {MERGED}[assistant] a pipe[user] what is it"),
        (ALTERNATING, [USER, USER], "[user] what is it\n\nwhat is it"),
        (NO_TOOL.replace("'system', ", ""), [USER, SYSTEM, USER], f"[user] {MERGED}\n\nwhat is it"),
        (ALTERNATING, [{**SYSTEM, "role": "developer"}, USER], f"[user] {MERGED}"),
        (NO_SYSTEM, [{**SYSTEM, "content": None}, USER], "[user] what is it"),
        (NO_SYSTEM, [{**SYSTEM, "content": [{"type": "text", "text": "be brief"}]}, USER],
         f"[user] {MERGED}"),
        (ALTERNATING, [ANSWER, USER], None),
        (NO_SYSTEM, [SYSTEM], None),
        (NO_TOOL, [USER, {"role": "tool", "content": "42"}], None),
        (NEEDS_TOOLS, [USER], None),
        (PARTS, [USER], None),
        ("", [USER], None),
        ("{% if %}", [USER], None),
        ("{{ raise_exception('never') }}", [SYSTEM, USER], None),
        (TURNS, [], None),
    ],
)  # fmt: skip
def test_conversations_are_folded_or_left_out(
    template: str, messages: list[dict[str, Any]], expected: str | None
) -> None:
    given_messages = [dict(m) for m in messages]
    renderer = ConversationRenderer(ChatTemplate(template, {}))
    assert renderer.text(3, messages) == expected
    assert messages == given_messages
    for note in renderer.notes("line", "lines"):
        assert note.startswith("line 3")
    left_out = any(
        "left out of the calibration text: the model's chat template" in n for n in renderer.notes("", "")
    )
    assert left_out == (expected is None)


def test_tools_and_documents_reach_the_template() -> None:
    renderer = ConversationRenderer(ChatTemplate(NEEDS_TOOLS + "{{ documents[0].title }}", {}))
    text = renderer.text(1, [USER], tools=[{"function": {"name": "f"}}], documents=[{"title": "t"}])
    assert text == "f[user] what is itt"
    assert renderer.notes("line", "lines") == []


def test_notes_count_what_was_changed_and_say_why_not() -> None:
    renderer = ConversationRenderer(ChatTemplate(NO_SYSTEM + NO_TOOL, {}))
    for number in range(1, 14):
        renderer.text(number, [SYSTEM, USER])
    renderer.text(20, [{"role": "tool", "content": "1"}])
    renderer.text(21, [{"role": "tool", "content": "1"}])
    renderer.text(22, [{"role": "critic", "content": "1"}])
    folded, first, second = renderer.notes("line", "lines")
    assert folded.startswith(
        "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more: the chat template refuses the system"
    )
    assert first.startswith("lines 20, 21 left out of the calibration text: ")
    assert first.endswith("Unknown role tool.")
    assert second.startswith("line 22 left out")


def test_joined_turns_are_told_apart_from_a_folded_system_message() -> None:
    renderer = ConversationRenderer(ChatTemplate(ALTERNATING, {}))
    renderer.text(5, [USER, USER])
    assert renderer.notes("line", "lines") == [
        "line 5: the chat template wants turns to alternate, so neighbouring turns of one side were joined."
    ]


def test_the_built_in_conversations_suit_the_case() -> None:
    chat = ChatTemplate.from_files(small_files(CASES / "f1_mistral"))
    assert chat is not None
    renderer = ConversationRenderer(chat)
    for number, turns in enumerate(default_conversations(), start=1):
        text = renderer.text(number, turns)
        assert text is not None
        assert all(message["content"] in text for message in turns)
    (note,) = renderer.notes("conversation", "conversations")
    assert "was put in front of the first user turn" in note


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"])},
            optional={
                "content": st.none()
                | st.text(max_size=5)
                | st.lists(st.text(max_size=3) | st.none(), max_size=2),
                "tool_calls": st.just([{}]),
            },
        ),
        max_size=6,
    )
)
@settings(max_examples=200, deadline=None)
def test_folding_loses_no_words_and_any_messages_are_text_or_none(messages: list[dict[str, Any]]) -> None:
    folded = folded_system(messages)
    if any(m["role"] == "user" for m in messages):
        assert all(m["role"] not in ("system", "developer") for m in folded)
        everything = "\n".join(str(m.get("content")) for m in folded)
        assert all(m["content"] in everything for m in messages if isinstance(m.get("content"), str))
    else:
        assert folded == messages
    for template in (TURNS, ALTERNATING, NO_TOOL, "{{ messages[0].content + 'x' }}"):
        text = ConversationRenderer(ChatTemplate(template, {})).text(1, messages)
        assert text is None or isinstance(text, str)
