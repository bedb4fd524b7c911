"""What a student answers on its own: conversations up to each answer, and first parts of texts."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.documents import Document
from rockledge.distillation.learnt_tokens import Tokens, conversation_tokens, text_tokens
from rockledge.distillation.prompts import prompts_of
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.synth import model_files, shape_config

FILES = dict(model_files(shape_config("toy")))


def conversation(*contents: str) -> Document:
    roles = ("user", "assistant")
    return Document(
        "here", "", tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(contents))
    )


def test_a_conversation_is_answered_where_the_assistant_did() -> None:
    """Each prompt is what the chat template makes of the messages before, ready for an answer."""
    tokenizer, chat = Tokenizer.from_files(FILES), ChatTemplate.from_files(FILES)
    assert chat is not None
    document = conversation("Why?", "Because.", "And then?", "Nothing.")
    found = prompts_of([conversation_tokens(document, tokenizer, chat)], [], 500, 20)
    expected = [
        chat.render(list(document.messages[:place]), add_generation_prompt=True, tools=None)
        for place in (1, 3)
    ]
    assert [tokenizer.decode(ids, skip_special=False) for ids in found.train] == expected
    assert found.notes == ()


def test_conversations_without_room_for_an_answer_are_left_out() -> None:
    tokenizer, chat = Tokenizer.from_files(FILES), ChatTemplate.from_files(FILES)
    assert chat is not None
    parts = [
        conversation_tokens(conversation(asked, "Yes."), tokenizer, chat)
        for asked in ("Short?", "Long?" * 40)
    ]
    found = prompts_of(parts, [parts[1]], 128, 32)
    assert len(found.train) == 1
    assert found.held_out == ()
    assert found.notes == ("1 of 2 prompts are longer than 96 tokens and were not answered.",)
    with pytest.raises(UsageError, match="leaves room for 120 tokens of an answer in a sequence of 128"):
        prompts_of(parts, [], 128, 120)


@given(count=st.integers(2, 300), length=st.integers(8, 64), data=st.data())
def test_prompts_of_a_text_are_spread_over_it_and_leave_room(
    count: int, length: int, data: st.DataObject
) -> None:
    answer = data.draw(st.integers(1, length - 1))
    document = Tokens(np.arange(count, dtype=np.int64), np.arange(count) > 0)
    found = prompts_of([document], [document], length, answer)
    assert found.train == found.held_out
    for prompt in found.train:
        assert 0 < len(prompt) <= length - answer
        assert prompt[0] % length == 0
        assert all(b == a + 1 for a, b in pairwise(prompt))
        assert prompt[-1] < count - 1  # something of the document follows
    assert len(found.train) in (count // length, -(-count // length))


def test_a_text_begins_as_the_model_reads_it(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_files(FILES)
    text = "A spindle turns."
    found = prompts_of([text_tokens(text, tokenizer, tokenizer.id("</s>"))], [], 64, 32)
    whole = tokenizer.encode(text, bos=True)
    assert list(found.train[0]) == whole[: len(found.train[0])]
