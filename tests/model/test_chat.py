"""Chat templates: rendered as transformers renders them, sandboxed, refused with a sentence."""

import json
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from rockledge.errors import CheckpointError, UsageError
from rockledge.model.chat import ChatTemplate

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


@pytest.mark.parametrize("template", [CHATML, TOOLS], ids=["chatml", "tools"])
@pytest.mark.parametrize("messages", [CHAT, CHAT[:1], []], ids=["long", "short", "empty"])
@pytest.mark.parametrize("prompt", [True, False])
def test_prompts_are_those_of_transformers(
    template: str, messages: list[dict[str, str]], prompt: bool
) -> None:
    rendered, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=prompt, **TOKENS
    )
    assert ChatTemplate(template, TOKENS).render(messages, add_generation_prompt=prompt) == rendered[0]


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
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
        ("{{ messages[0].content + 1 }}", "refuses"),
        ("{{ missing.attribute }}", "refuses"),
        ("{{ 1 / 0 }}", "refuses"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses"),  # the sandbox holds
        ("{{ messages.append(1) }}", "refuses"),
        ("{% for i in range(10000000) %}{% endfor %}", "refuses"),
    ],
)
def test_what_a_template_refuses_is_a_sentence(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ChatTemplate(template, {}).render([{"role": "user", "content": "x"}])


def test_a_template_that_is_no_jinja_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no valid Jinja"):
        ChatTemplate("{% if %}", {})
