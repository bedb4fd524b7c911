"""Answers read as they come: thoughts, text and calls in the forms that models write."""

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.dialects import TEMPLATES

from rockledge.serve.conversation.answer_reader import AnswerReader, AnswerShape
from rockledge.serve.conversation.call_forms import FORMS, HERMES, JSON, form_of
from rockledge.serve.conversation.reasoning import MARKS, Thoughts

THINK = Thoughts("<think>", "</think>")
BY_NAME = {form.name: form for form in FORMS}
TOOLS = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "time": {"type": "object"},
}
PARIS = ("weather", {"city": "Paris", "days": 3})
NOW = ("time", {})


def read(text: str, shape: AnswerShape, cuts: Any = None) -> tuple[str, str, list[Any]]:
    """Thoughts, text and calls of an answer that comes in the pieces between `cuts`."""
    edges = [0, *sorted(cuts or ()), len(text)]
    reader = AnswerReader(shape)
    found = [f for a, b in itertools.pairwise(edges) for f in reader.push(text[a:b])]
    found += reader.flush()
    calls = [(call.name, call.arguments) for fragment in found for call in fragment.calls]
    return "".join(f.thoughts for f in found), "".join(f.text for f in found), calls


def with_tools(form: str, **options: Any) -> AnswerShape:
    return AnswerShape(form=BY_NAME[form], tools=TOOLS, **options)


HERMES_PARIS = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
HERMES_NOW = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
JSON_PARIS = '{"name": "weather", "arguments": {"city": "Paris", "days": 3}}'
LLAMA_PARIS = '{"name": "weather", "parameters": {"city": "Paris", "days": 3}}'
XML_PARIS = """<tool_call>
<function=weather>
<parameter=city>
Paris
</parameter>
<parameter=days>
3
</parameter>
</function>
</tool_call>"""
GEMMA_PARIS = "<start_function_call>call:weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
GEMMA_NOW = "<start_function_call>call:time{}<end_function_call>"
ODD = {"a": [1, "x, }"], "b": {"c": True}, "d": None, "e": -150.0}
# What the models' own cards and templates show, as answers without their end-of-turn tokens.
WRITTEN: list[Any] = [
    ("hermes", HERMES_PARIS, "", [PARIS]),
    ("hermes", f"{HERMES_PARIS}\n{HERMES_NOW}", "", [PARIS, NOW]),
    ("hermes", f"I'll look.\n{HERMES_NOW}", "I'll look.\n", [NOW]),
    ("hermes", HERMES_NOW.removesuffix("\n</tool_call>"), "", [NOW]),
    ("hermes", '<tool_call>{"name": "time"}</tool_call>', "", [NOW]),
    ("hermes", HERMES_NOW.replace("{}", '{"a": "</tool_call>"}'), "", [("time", {"a": "</tool_call>"})]),
    ("hermes", XML_PARIS, "", [PARIS]),
    ("hermes", "<tool_call>\n<function=time>\n</function>\n</tool_call>", "", [NOW]),
    ("json", LLAMA_PARIS, "", [PARIS]),
    ("json", '<|python_tag|>{"name": "time", "parameters": {}}', "", [NOW]),
    ("json", '{"type": "function", "name": "time", "parameters": {}}', "", [NOW]),
    ("json", '{"type": "function", "function": {"name": "time", "arguments": "{}"}}', "", [NOW]),
    ("json", '{"name": "time", "parameters": {}}; ' + LLAMA_PARIS, "", [NOW, PARIS]),
    ("json", '[{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}]', "", [NOW, NOW]),
    ("json", '```json\n{"name": "time", "arguments": {}}\n```', "", [NOW]),
    ("json", 'Let me see: {"name": "time", "parameters": {}}', "Let me see: ", [NOW]),
    ("mistral", f'[TOOL_CALLS] [{JSON_PARIS}, {{"name": "time", "arguments": {{}}}}]', "", [PARIS, NOW]),
    ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Paris", "days": 3}', "", [PARIS]),
    ("mistral", "[TOOL_CALLS]time[ARGS]{}[TOOL_CALLS]time[ARGS]{}", "", [NOW, NOW]),
    ("mistral", "[TOOL_CALLS]time{}", "", [NOW]),
    ("mistral", "Sure.[TOOL_CALLS]time[CALL_ID]abcdefghi[ARGS]{}", "Sure.", [NOW]),
    ("granite", f"<|tool_call|>[{JSON_PARIS}]", "", [PARIS]),
    ("granite", '<|tool_call|>[{"name": "time", "arguments": {}}]<|/tool_call|>', "", [NOW]),
    ("functiongemma", GEMMA_PARIS, "", [PARIS]),
    ("functiongemma", GEMMA_NOW + GEMMA_NOW, "", [NOW, NOW]),
    ("gemma4", '<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>', "", [PARIS]),
    (
        "gemma4",
        '<|tool_call>call:time{a:[1,<|"|>x, }<|"|>],b:{c:true},d:null,e:-1.5e2}<tool_call|>',
        "",
        [("time", ODD)],
    ),
]


@pytest.mark.parametrize("form, answer, text, calls", WRITTEN)
def test_calls_are_read_in_the_models_own_form(form: str, answer: str, text: str, calls: Any) -> None:
    for cuts in ((), range(1, len(answer))):
        assert read(answer, with_tools(form), cuts) == ("", text, calls)


@pytest.mark.parametrize(
    "form, answer",
    [
        ("hermes", "<tool_call>\nweather in Paris\n</tool_call>"),
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call> and more'),
        ("hermes", '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "time", "arguments": [1]}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "time", "arguments": {"a": NaN}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "weather", "argum'),
        # What could not be written as JSON once it was read.
        ("hermes", '<tool_call>\n{"name": "time", "arguments": {"a": [1e999]}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "time", "arguments": {"\\ud800": 1}}\n</tool_call>'),
        ("hermes", '<tool_call><function=time><parameter=a>"\\udfff"</parameter></function></tool_call>'),
        ("mistral", '[TOOL_CALLS]time[ARGS]{"a": "\\ud800"}'),
        ("granite", '<|tool_call|>[{"name": "time", "arguments": {"a": -1e999}}]'),
        ("functiongemma", "<start_function_call>call:time{a:1e999}<end_function_call>"),
        ("gemma4", '<|tool_call>call:time{a:"\\ud800"}<tool_call|>'),
        ("hermes", "<tool_call>\n<function=time>\n<parameter=a>\n</function>\n</tool_call>"),
        ("hermes", "<tool_call><tool_call>"),
        ("hermes", "1 < 2 and <tool"),
        ("json", '{"temperature": 3}'),
        ("json", '[{"name": "Anna"}]'),
        ("json", '{"name": "time", "parameters": {}} is how to do it'),
        ("json", "[" * 5000),
        ("json", "  "),
        ("json", '{"name": "time", "parameters": ' + '{"a": ' * 200 + "1" + "}" * 201),
        ("mistral", "[TOOL_CALLS] no"),
        ("mistral", '[TOOL_CALLS]time[ARGS]{"a": 1'),
        ("granite", "<|tool_call|>[]"),
        ("functiongemma", "<start_function_call>call:time{a:<escape>b}<end_function_call>"),
        ("gemma4", "<|tool_call>call:time" + "{a:" * 300 + "<tool_call|>"),
        ("gemma4", "<|tool_call>call:time{a:}<tool_call|>"),
    ],
)
def test_what_is_not_a_call_stays_text(form: str, answer: str) -> None:
    for cuts in ((), range(1, len(answer))):
        assert read(answer, with_tools(form), cuts) == ("", answer, [])


PIECES = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<|tool_call|>", "<|tool_call>", "<tool_call|>"),
    *('{"name": "time", "arguments": {}}', HERMES_NOW, "call:time{a:1}", "[TOOL_CALLS]", "time[ARGS]{}"),
    *("\n", " ", "a", "<", "</", "<|python_tag|>", "[", "]", "{", "```json\n", "\n```", '"</tool_call>'),
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=10).map("".join),
    st.sampled_from([None, *FORMS]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_any_cut_gives_the_same(
    text: str, form: Any, thinks: bool, opened: bool, one: bool, data: st.DataObject
) -> None:
    shape = AnswerShape(
        THINK if thinks else None, thinks and opened, form, TOOLS if form else {}, one_call=one
    )
    whole = read(text, shape)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    assert read(text, shape, cuts) == whole
    assert read(text, shape, range(1, len(text))) == whole


@pytest.mark.parametrize(
    "answer, thinking, thoughts, text",
    [
        ("<think>\nHm.\n</think>\n\nYes", False, "Hm.", "Yes"),
        ("\n<think>Hm</think>Yes", False, "Hm", "Yes"),
        ("Hm.\n</think>\n\nYes", True, "Hm.", "Yes"),
        ("<think>\n\n</think>\n\nYes", False, "", "Yes"),
        ("<think>Hm", False, "Hm", ""),
        ("Hm", True, "Hm", ""),
        ("Yes <think>no</think>", False, "", "Yes <think>no</think>"),
        ("<thinker>", False, "", "<thinker>"),
    ],
)
def test_thoughts_are_apart(answer: str, thinking: bool, thoughts: str, text: str) -> None:
    shape = AnswerShape(THINK, thinking)
    for cuts in ((), range(1, len(answer))):
        assert read(answer, shape, cuts) == (thoughts, text, [])


def test_a_call_in_thoughts_is_a_thought_and_one_after_them_is_a_call() -> None:
    shape = AnswerShape(THINK, False, HERMES, TOOLS)
    answer = f"<think>I could {HERMES_NOW}</think>\n{HERMES_PARIS}"
    assert read(answer, shape, range(1, len(answer))) == (f"I could {HERMES_NOW}", "", [PARIS])


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.opening)
def test_every_pair_of_marks_is_split_alike_from_an_answer_and_in_history(marks: Thoughts) -> None:
    answer = f"{marks.opening}\nHm\n{marks.closing}\nYes"
    assert read(answer, AnswerShape(marks)) == ("Hm", "Yes", [])
    assert marks.split(answer) == ("Hm", "Yes")
    assert marks.split("Yes") == (None, "Yes")


def test_one_call_at_most() -> None:
    text = f"Now: {HERMES_NOW}\n{HERMES_PARIS} and so on"
    assert read(text, with_tools("hermes", one_call=True)) == ("", "Now: ", [NOW])
    listed = json.dumps([{"name": "time", "arguments": {}}] * 2)
    assert read(listed, with_tools("json", one_call=True)) == ("", "", [NOW])


def test_a_call_is_given_out_as_soon_as_it_is_whole() -> None:
    reader = AnswerReader(with_tools("hermes"))
    assert not reader.push(HERMES_NOW[:-1])
    [fragment] = reader.push(">")
    assert fragment.calls


MANY = 20_000


@pytest.mark.parametrize(
    "form, answer",
    [
        ("json", "```json" + " " * MANY + "x"),
        ("json", "```" + "\n" * MANY + "[" + " " * MANY),
        *((form.name, form.openings[0] * MANY) for form in FORMS),
        *((form.name, form.openings[0][:-1] * MANY) for form in FORMS),
        *((form.name, form.openings[0] + " " * MANY + (form.closing or "")) for form in FORMS),
        ("hermes", "<tool_call><function=time>" + "<parameter=a>1</parameter>" * (MANY // 5)),
        ("hermes", "<tool_call><function=time>" + " " * MANY + "</function>x</tool_call>"),
        ("mistral", "[TOOL_CALLS]" + "f[CALL_ID]" * MANY),
    ],
    ids=lambda value: value[:24].strip(),
)
def test_no_answer_takes_long_to_read(form: str, answer: str) -> None:
    """It is read in the event loop. Each of these took seconds, or hours, where time grew with its square or
    cube."""
    began = time.process_time()
    read(answer, with_tools(form), range(40, len(answer), 40))
    assert time.process_time() - began < 2.5


@pytest.mark.parametrize(
    "template, form", [("llama", "json"), ("qwen", "hermes"), ("mistral", "mistral"), ("granite", "granite")]
)
def test_a_template_says_which_form_its_model_has(template: str, form: str) -> None:
    assert form_of([TEMPLATES[template]]).name == form
    assert form_of(["{{ tools }}"]) is JSON
