"""How a model speaks, read from its template and its vocabulary."""

import json
from typing import Any

import pytest
from tests.model.vocabularies import train_byte_level
from tests.serve.dialects import TEMPLATES
from tokenizers import AddedToken

from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.answer import Answer
from rockledge.serve.conversation.dialect import Dialect


def tokenizer(*special: str, plain: tuple[str, ...] = ()) -> Tokenizer:
    made = train_byte_level("qwen2")
    made.add_special_tokens([AddedToken(text, special=True) for text in special])
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    return Tokenizer.from_files({"tokenizer.json": made.to_str().encode(), "config.json": b"{}"})


def dialect(template: str, words: Tokenizer) -> Dialect:
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return Dialect.of(ChatTemplate(TEMPLATES.get(template, template), tokens), words)


@pytest.mark.parametrize(
    "template, special, calls, thoughts",
    [
        ("mistral", ("[TOOL_CALLS]", "[ARGS]", "[INST]"), ("[ARGS]", "[TOOL_CALLS]"), ()),
        ("llama", ("<|python_tag|>", "<|eot_id|>"), ("<|python_tag|>",), ()),
        ("granite", ("<|tool_call|>", "<|start_of_role|>"), ("<|tool_call|>",), ()),
        ("qwen", ("<think>", "</think>"), (), ("<think>", "</think>")),
        ("gemma", ("[THINK]", "[/THINK]"), (), ("[THINK]", "[/THINK]")),
        ("gemma", (), (), ()),
    ],
)
def test_special_tokens_that_an_answer_is_read_by_are_shown(
    template: str, special: tuple[str, ...], calls: tuple[str, ...], thoughts: tuple[str, ...]
) -> None:
    words = tokenizer(*special)
    found = dialect(template, words)
    assert {words.id(text) for text in calls} == set(found.shown_calls)
    assert {words.id(text) for text in thoughts} == set(found.shown_thoughts)


def test_tokens_that_are_text_anyway_need_no_showing() -> None:
    assert dialect("qwen", tokenizer(plain=("<think>", "</think>"))).shown_thoughts == ()


def test_shown_tokens_are_in_the_text_of_an_answer_and_others_are_not() -> None:
    words = tokenizer("[TOOL_CALLS]", "[INST]")
    ids: list[Any] = [words.id("[INST]"), words.id("[TOOL_CALLS]"), *words.encode(json.dumps({}), bos=False)]
    answer = Answer(words, (), False, (ids[1],))
    pieces = [answer.push(token, 0.0, ()) for token in ids]
    assert "".join(piece.text for piece in (*pieces, answer.last("stop")) if piece) == "[TOOL_CALLS]{}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_say_whether_they_take_tools(name: str) -> None:
    assert dialect(name, tokenizer()).takes_tools == (name != "gemma")
    named = ChatTemplate(TEMPLATES["gemma"], {}, tool_use=TEMPLATES["qwen"])
    assert named.takes_tools
