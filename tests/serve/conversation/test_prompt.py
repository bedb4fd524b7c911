"""Conversations with tools as prompts: transformers' where it renders them, and where it does not."""

import json
from typing import Any

import pytest
from tests.serve.dialects import TEMPLATES
from tests.serve.scripted_engine import TOKENIZER
from transformers.utils.chat_template_utils import render_jinja_template

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.serve.conversation.dialect import Dialect, effort_switches
from rockledge.serve.conversation.messages import Message, Tool
from rockledge.serve.conversation.prompt import Conversation, render, template_messages, template_tools

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# Its keys are in an order, and it has one, that no schema knows: templates show them as they are.
TOOL = {
    "type": "function",
    "function": {
        "description": "The <weather>",
        "name": "weather",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED = {"role": "user", "content": "How is Zürich?"}
ARGUMENTS = {"city": "Zürich"}


def called(arguments: Any, name: str = "abcdefghi", **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"id": name, "type": "function", "function": function}],
        **more,
    }


def result(name: str = "abcdefghi") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "name": "weather", "content": '{"sky": "<blue>"}'}


def prompt(template: str, messages: list[Any], tools: Any = (TOOL,), **options: Any) -> str:
    chat = ChatTemplate(TEMPLATES.get(template, template), TOKENS)
    dialect = Dialect.of(chat, TOKENIZER)
    read = template_messages([Message.model_validate(message) for message in messages], dialect)
    tools = template_tools([Tool.model_validate(tool) for tool in tools]) or None
    return render(chat, dialect, Conversation(read, tools, **options))


def theirs(template: str, messages: list[Any], tools: Any = (TOOL,), **options: Any) -> str:
    options = {"add_generation_prompt": True, **TOKENS, **options}
    [rendered], _ = render_jinja_template(
        [messages], list(tools) or None, chat_template=TEMPLATES[template], **options
    )
    return str(rendered)


@pytest.mark.parametrize("template", ["llama", "qwen", "mistral", "granite"])
@pytest.mark.parametrize("tools", [(TOOL,), ()], ids=["tools", "none"])
@pytest.mark.parametrize("as_text", [True, False])
def test_calls_and_results_are_rendered_as_transformers_renders_them(
    template: str, tools: Any, as_text: bool
) -> None:
    content = {"content": ""} if template == "granite" else {}
    history = [ASKED, called(ARGUMENTS, **content), result(), {"role": "assistant", "content": "Blue"}, ASKED]
    arguments = json.dumps(ARGUMENTS) if as_text else ARGUMENTS
    sent = [ASKED, called(arguments, content=content.get("content")), *history[2:]]
    for turns in (1, 3, 5):
        assert prompt(template, sent[:turns], tools) == theirs(template, history[:turns], tools)


def test_a_template_that_wants_content_gets_some() -> None:
    assert prompt("granite", [ASKED, called(ARGUMENTS, content=None), result()]) == theirs(
        "granite", [ASKED, called(ARGUMENTS, content=""), result()]
    )


def test_a_template_that_wants_text_as_arguments_gets_that() -> None:
    text = json.dumps(ARGUMENTS, ensure_ascii=False)
    assert prompt("r1", [ASKED, called(ARGUMENTS), result()]) == theirs("r1", [ASKED, called(text), result()])


def test_mistral_gets_ids_that_it_takes() -> None:
    rendered = prompt("mistral", [ASKED, called(ARGUMENTS, "call_1"), result("call_1")])
    name = rendered.split('"id": "')[1][:9]
    assert name.isalnum()
    assert rendered == theirs("mistral", [ASKED, called(ARGUMENTS, name), result(name)])


def test_what_a_template_refuses_is_refused_with_its_first_sentence() -> None:
    calls = called(ARGUMENTS)["tool_calls"] * 2
    with pytest.raises(UsageError, match="one call at a time"):
        prompt("llama", [ASKED, {"role": "assistant", "tool_calls": calls}])


def test_a_template_without_tools_gets_them_in_plain_messages() -> None:
    again = {"role": "user", "content": "And now?"}
    messages = [{"role": "system", "content": "Be brief."}, ASKED, called(ARGUMENTS), result(), again]
    rendered = prompt("gemma", messages)
    assert rendered.startswith("<s><start_of_turn>user\nBe brief.\n\nYou can call functions.")
    assert json.dumps(TOOL, ensure_ascii=False) in rendered
    turns = rendered.split("<start_of_turn>")
    assert turns[1].endswith("\n\nHow is Zürich?<end_of_turn>\n")
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
    assert turns[2] == f"model\n{call}<end_of_turn>\n"
    answer = '<tool_response>\n{"sky": "<blue>"}\n</tool_response>\nAnd now?'
    assert turns[3:] == [f"user\n{answer}<end_of_turn>\n", "model\n"]


def test_history_with_calls_needs_no_tools() -> None:
    rendered = prompt("gemma", [ASKED, called(ARGUMENTS), result()], ())
    assert "You can call" not in rendered
    assert "<tool_response>" in rendered


def test_a_conversation_without_tools_is_the_templates_alone() -> None:
    messages = [ASKED, {"role": "assistant", "content": "Blue"}, ASKED]
    for template in ("llama", "qwen", "mistral", "gemma", "granite", "r1"):
        assert prompt(template, messages, ()) == theirs(template, messages, ())


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>\nHm\n</think>\n\nBlue"},
        {"content": "Blue", "reasoning_content": "Hm"},
        {"content": "Blue", "reasoning": "Hm"},
    ],
)
def test_thoughts_of_earlier_turns_are_left_out_where_the_template_does(message: dict[str, str]) -> None:
    turns = [ASKED, {"role": "assistant", **message}]
    assert "<think>\nHm\n</think>\n\nBlue" in prompt("qwen", turns, ())
    assert "Hm" not in prompt("qwen", [*turns, ASKED], ())
    assert "Hm" not in prompt("r1", [*turns, ASKED], ())


@pytest.mark.parametrize("content", ["The sky is ", "  So", "A<|im_end|>B", "x</think>y"])
@pytest.mark.parametrize("template", ["llama", "qwen", "mistral", "gemma", "granite"])
def test_the_last_message_can_be_continued_as_in_transformers(template: str, content: str) -> None:
    messages = [ASKED, {"role": "assistant", "content": content}]
    expected = theirs(template, messages, (), add_generation_prompt=False, continue_final_message=True)
    assert prompt(template, messages, (), continued=True) == expected


def test_a_message_that_the_template_drops_cannot_be_continued() -> None:
    with pytest.raises(UsageError, match="leaves out the last message"):
        prompt(
            "{{ messages[0].content }}", [ASKED, {"role": "assistant", "content": "x"}], (), continued=True
        )


def test_a_developer_is_the_system_unless_the_template_knows_one() -> None:
    told = [{"role": "developer", "content": "x"}, ASKED]
    assert "<|im_start|>system\nx" in prompt("qwen", told, ())
    assert prompt("{% if developer %}{% endif %}{{ messages[0].role }}", told, ()) == "developer"


@pytest.mark.parametrize(
    "source, effort, switches",
    [
        ("{{ enable_thinking }}", "none", {"enable_thinking": False}),
        ("{{ enable_thinking }}", "low", {"enable_thinking": True}),
        ("{{ reasoning_effort }}{{ thinking }}", "high", {"reasoning_effort": "high", "thinking": True}),
        ("{{ messages }}", "high", {}),
        ("{{ enable_thinking }}", None, {}),
    ],
)
def test_effort_is_what_the_template_calls_it(source: str, effort: Any, switches: dict[str, Any]) -> None:
    assert effort_switches(Dialect.of(ChatTemplate(source, {}), TOKENIZER), effort) == switches
