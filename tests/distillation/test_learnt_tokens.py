"""Which tokens of a conversation are learnt: those that transformers marks as the assistant's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rockledge.distillation.documents import Document
from rockledge.distillation.learnt_tokens import conversation_tokens, text_tokens
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.synth import model_files, shape_config

# ChatML, with the marks by which transformers' `return_assistant_tokens_mask` knows what the assistant wrote.
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|begin|>assistant\n"
    "{% generation %}{{ m.content }}<|end|>\n{% endgeneration %}"
    "{% else %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Grüße 🙂?"}, {"role": "assistant", "content": "Ja – 🙂 sure"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "assistant\n"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "last"},
    ],
]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {**model_files(shape_config("toy")), "chat_template.jinja": MARKED.encode()}


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_answers_are_what_transformers_marks(
    messages: list[dict[str, Any]], files: dict[str, bytes], tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    chat = ChatTemplate.from_files(files)
    assert chat is not None
    found = conversation_tokens(Document("line 1", "", tuple(messages)), Tokenizer.from_files(files), chat)
    assert found.ids.tolist() == reference["input_ids"]
    assert found.learnt.astype(int).tolist() == reference["assistant_masks"]


def test_all_of_a_text_but_its_first_token_is_learnt(files: dict[str, bytes]) -> None:
    tokenizer = Tokenizer.from_files(files)
    found = text_tokens("abc", tokenizer, 2)
    assert found.ids.tolist() == [*tokenizer.encode("abc", bos=True), 2]
    assert found.learnt.tolist() == [False, True, True, True]


def test_a_conversation_without_an_answer_is_refused(files: dict[str, bytes]) -> None:
    chat = ChatTemplate.from_files(files)
    assert chat is not None
    document = Document("line 7 of x.jsonl", "", ({"role": "user", "content": "hi"},))
    with pytest.raises(UsageError, match=r"line 7 of x\.jsonl shows no answer"):
        conversation_tokens(document, Tokenizer.from_files(files), chat)


def test_an_answer_that_the_template_rewrites_later_is_not_learnt(files: dict[str, bytes]) -> None:
    """As Qwen3 drops the thoughts of earlier answers: the student would learn what it never is shown."""
    template = (
        "{% for m in messages %}<|begin|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>x</think>{% endif %}"
        "{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
    )
    chat = ChatTemplate(template, {})
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    tokenizer = Tokenizer.from_files(files)
    found = conversation_tokens(Document("", "", tuple(turns)), tokenizer, chat)
    learnt = b"".join(tokenizer.token_bytes(int(i)) for i in found.ids[found.learnt])
    assert learnt == b"<think>x</think>d<|end|>\n"
    assert np.sum(found.learnt) < len(found.ids) // 2
