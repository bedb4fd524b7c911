"""Chat templates: rendered as transformers renders them, sandboxed, refused with a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.oracle import CASES, auto_tokenizer, small_files, written
from transformers.utils.chat_template_utils import render_jinja_template

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate, with_named_templates

CHATML = """{% for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}
{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}
    {%- endif %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}
{%- endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{% endif %}"""
TOOLS = """{%- if tools %}{{ tools | tojson }}{% endif -%}
{{ bos_token }}{% for m in messages if m.role != 'skip' %}{% if loop.index > 3 %}{% break %}{% endif %}
{% generation %}[{{ m.role | upper }}] {{ m | tojson }}{% endgeneration %}
{% endfor %}{{ eos_token if not add_generation_prompt }}"""
CHAT = [
    {"role": "user", "content": "  Hi <b>&'\"ü "},
    {"role": "assistant", "content": "Hello"},
    {"role": "skip", "content": ""},
    {"role": "user", "content": "a\nb"},
    {"role": "assistant", "content": "c"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


JSON = """{% for m in messages %}{{ m.content | tojson(ensure_ascii=False) }}{{ m | tojson(indent=2) }}
{{ m | tojson(separators=(',', ':'), sort_keys=True) }}{{ m | tojson(ensure_ascii=True) }}
{{ m | tojson(true, 1) }}
{% endfor %}"""
SCOPES = """{% set ns = namespace(count=0, self='x') %}{% for m in messages %}{% if m.role == 'skip' %}
{% continue %}{% endif %}{% set ns.count = ns.count + 1 %}
{% generation %}{% set inner = 'set' %}{{ inner }}{% endgeneration %}
{{ inner }}{{ ns.count }}{{ ns.self }}{% endfor %}{{ dict(a=1) }}{{ dict.fromkeys('ab') }}"""
NULLS = """{% for m in messages %}{{ 'content' in m }}{% for key in m %}{{ key }} {% endfor %}
{%- if m.reasoning_content is defined %}<think>{{ m.thinking }}{{ m.reasoning_content }}</think>{% endif %}
{% endfor %}{{ tools is none }}{{ documents is none }}"""


@pytest.mark.parametrize(
    "template", [CHATML, TOOLS, JSON, SCOPES, NULLS], ids=["chatml", "tools", "json", "scopes", "nulls"]
)
@pytest.mark.parametrize("messages", [CHAT, CHAT[:1], []], ids=["long", "short", "empty"])
@pytest.mark.parametrize("prompt", [True, False])
def test_prompts_are_those_of_transformers(
    template: str, messages: list[dict[str, str]], prompt: bool
) -> None:
    rendered, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=prompt, **TOKENS
    )
    assert ChatTemplate(template, TOKENS).render(messages, add_generation_prompt=prompt) == rendered[0]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    options=st.fixed_dictionaries(
        {},
        optional={
            "ensure_ascii": st.booleans(),
            "indent": st.none() | st.integers(0, 4) | st.just("--"),
            "separators": st.sampled_from([(",", ":"), (" , ", " = "), None]),
            "sort_keys": st.booleans(),
        },
    ),
)
@settings(max_examples=150, deadline=None)
def test_json_is_written_as_transformers_writes_it(value: Any, options: dict[str, Any]) -> None:
    named = ", ".join(f"{key}={option!r}" for key, option in options.items())
    template = f"{{{{ messages[0].value | tojson({named}) }}}}"
    rendered, _ = render_jinja_template([[{"value": [value]}]], chat_template=template)
    assert ChatTemplate(template, {}).render([{"value": [value]}]) == rendered[0]


@pytest.mark.parametrize("messages", [
    [{"role": "user", "content": "Hé"}],
    [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}], "reasoning": "Hm"}],
], ids=["plain", "null"])  # fmt: skip
@pytest.mark.parametrize("tools", [None, [{"type": "function", "function": {"name": "f"}}]])
@pytest.mark.parametrize("place", ["list", "folder", "jinja", "jinja and list"])
def test_every_place_of_templates_is_read_as_transformers_reads_it(
    messages: list[dict[str, Any]], tools: list[Any] | None, place: str, tmp_path: Path
) -> None:
    listed = [{"name": "default", "template": NULLS}, {"name": "tool_use", "template": TOOLS}]
    config = {"chat_template": listed if "list" in place else None}
    others = {
        "list": {},
        "folder": {"chat_template.jinja": NULLS, "additional_chat_templates/tool_use.jinja": TOOLS},
        "jinja": {"chat_template.jinja": NULLS},
        "jinja and list": {"chat_template.jinja": CHATML.replace("message['content']", "'x'")},
    }[place]
    directory = written(tmp_path / "m", config=config, others=others)
    named = {path.stem: path.read_bytes() for path in directory.glob("additional_chat_templates/*")}
    chat = ChatTemplate.from_files(with_named_templates(small_files(directory), named))
    assert chat is not None
    theirs = auto_tokenizer(directory).apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, tokenize=False
    )
    assert chat.render(messages, tools=tools) == theirs


@pytest.mark.parametrize("case", ["f1_mistral", "f12_append", "f13_map", "f14_tojson"])
def test_the_cases_render_as_in_transformers(case: str) -> None:
    chat = ChatTemplate.from_files(small_files(CASES / case))
    assert chat is not None
    messages = [{"role": "user", "content": 'Hé "x"'}, {"role": "assistant", "content": "y"}]
    theirs = auto_tokenizer(CASES / case).apply_chat_template(messages, tokenize=False)
    assert chat.render(messages, add_generation_prompt=False) == theirs


def test_the_date_is_available() -> None:
    year = ChatTemplate("{{ strftime_now('%Y') }}", {}).render([])
    assert int(year) > 2000


def files(config: dict[str, Any], template: str | None = None) -> dict[str, bytes]:
    found = {"tokenizer_config.json": json.dumps(config).encode()}
    return found if template is None else {**found, "chat_template.jinja": template.encode()}


@pytest.mark.parametrize(
    ("given", "rendered"),
    [
        (files({"bos_token": "<s>"}, "{{ bos_token }}!"), "<s>!"),
        (files({"bos_token": {"content": "<b>"}, "chat_template": "{{ bos_token }}"}), "<b>"),
        (files({"chat_template": "config"}, "file"), "file"),
        (
            files(
                {
                    "chat_template": [
                        {"name": "tool_use", "template": "t"},
                        {"name": "default", "template": "d"},
                    ]
                }
            ),
            "d",
        ),
        (files({"eos_token": None, "chat_template": "[{{ eos_token }}]"}), "[]"),
    ],
)
def test_templates_are_found_where_checkpoints_keep_them(given: dict[str, bytes], rendered: str) -> None:
    chat = ChatTemplate.from_files(given)
    assert chat is not None
    assert chat.render([]) == rendered


@pytest.mark.parametrize(
    "given", [{}, files({}), files({"chat_template": []}), files({"chat_template": [3]})]
)
def test_a_model_without_a_template_has_none(given: dict[str, bytes]) -> None:
    assert ChatTemplate.from_files(given) is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate.') }}", "roles must alternate"),
        ("{{ raise_exception(3) }}", "3"),
        ("{{ messages[0].content + 1 }}", "it cannot work with what they hold (line 1 of the template)"),
        ("a\n{{ missing.attribute }}", "'missing' is undefined (line 2 of the template)"),
        ("{{ messages[0].name.first }}", "'name' is missing (line 1 of the template)"),
        ("{{ messages[0]['name']['first'] }}", "'name' is missing (line 1 of the template)"),
        ("{{ messages | tojson(no_such=1) }}", "it cannot work with what they hold (line 1 of the template)"),
        ("{{ 1 / 0 }}", "it cannot work with what they hold (line 1 of the template)"),
        ("{{ 'a' * 10 ** 15 }}", "it cannot work with what they hold (line 1 of the template)"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "it cannot work with what they hold (line 1 of the",
        ),
        # The sandbox holds.
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__' of 'str'"),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list'"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "a namespace cannot hold '_x'"),
        ("{{ namespace(__x=1) }}", "a namespace cannot hold '__x'"),
        ("{% for i in range(10000000) %}{% endfor %}", "it loops too often (line 1 of the template)"),
        ("{% include 'file' %}", "it cannot work with what they hold (line 1 of the template)"),
    ],
)
def test_what_a_template_refuses_is_a_sentence(template: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ChatTemplate(template, {}).render([{"role": "user", "content": "x"}])
    start = "the model's chat template refuses these messages: "
    assert str(caught.value).startswith(start + said)
    assert not any(word in str(caught.value) for word in ("lambda", "argument", "Traceback", "<", "()"))


@pytest.mark.parametrize(
    "template", ["{% if %}", "{{ x | no_such_filter }}", "{% for x in y %}", "{{ ((((( }}"]
)
def test_a_template_that_is_not_jinja_refuses_every_conversation(template: str) -> None:
    chat = ChatTemplate(template, {})
    with pytest.raises(UsageError, match=r"chat template is not valid Jinja \(line 1: "):
        chat.render([{"role": "user", "content": "x"}])


def test_tokens_that_a_template_names_and_nobody_defines() -> None:
    template = "{{ bos_token }}{{ eos_token }}{% set pad_token = 1 %}{{ pad_token }}{{ image_token }}"
    assert ChatTemplate(template, {"eos_token": "x"}).undefined_tokens == ["bos_token", "image_token"]


SWITCHED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{{ level }}"
)


@pytest.mark.parametrize(
    "switches", [{}, {"enable_thinking": False}, {"enable_thinking": True, "level": "low"}]
)
def test_switches_reach_the_template_as_in_transformers(switches: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    theirs = render_jinja_template([messages], chat_template=SWITCHED, **switches)[0][0]
    assert ChatTemplate(SWITCHED, {}).render(messages, False, switches=switches) == theirs
    assert ChatTemplate(SWITCHED, {}).with_switches(switches).render(messages, False) == theirs


def test_a_switch_of_the_call_goes_before_the_default() -> None:
    chat = ChatTemplate("{{ level }}", {}).with_switches({"level": "low"})
    assert chat.render([], switches={"level": "high"}) == "high"
    assert chat.render([]) == "low"


def test_a_switch_that_changes_nothing_is_refused_as_a_default() -> None:
    with pytest.raises(
        UsageError, match=r"does not read 'enable_thinkin', expected .*: enable_thinking, level"
    ):
        ChatTemplate(SWITCHED, {}).with_switches({"enable_thinkin": False})
    with pytest.raises(UsageError, match="'messages' is part of every conversation"):
        ChatTemplate(SWITCHED, {}).render([], switches={"messages": []})


def test_a_template_of_the_users_own_has_the_models_tokens() -> None:
    files = {"tokenizer_config.json": b'{"bos_token": "<s>", "chat_template": "old"}'}
    assert ChatTemplate.replacing("{{ bos_token }}!", files).render([]) == "<s>!"
    with pytest.raises(UsageError, match=r"^the chat template is not valid Jinja \(line 1"):
        ChatTemplate.replacing("{% if %}", files)
