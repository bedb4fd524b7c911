"""Prompts of users: lines, objects, and what is cut."""

from pathlib import Path

import pytest

from rockledge.doctor.prompts import BUILT_IN, LONGEST, built_in, prompt_tokens, read_prompts
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.synth import SHAPES, model_files

FILES = model_files(SHAPES["toy"])


def test_doctor_reads_lines_and_objects(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text('one\n{two\n{"prompt": "three"}\n\n{"messages": [{"role": "user", "content": "4"}]}\n')
    assert read_prompts(path) == ["one", "{two", "three", [{"role": "user", "content": "4"}]]
    path.write_text('one\n{"text": "three"}\n')
    with pytest.raises(UsageError, match="line 2 of "):
        read_prompts(path)


def test_doctor_cuts_long_prompts_and_says_so() -> None:
    tokenizer, chat = Tokenizer.from_files(FILES), ChatTemplate.from_files(FILES)
    asked = ["x" * 500, "short", *["y" * 100] * 4, [{"role": "user", "content": "why"}]]
    found, notes = prompt_tokens(asked, tokenizer, chat, 512, 300)
    assert [len(one) for one in found[:2]] == [LONGEST, 5]
    assert notes == [
        "1 of 7 prompts were cut to their first 128 tokens.",
        "Of 7 prompts the first 4 were used (384 tokens).",
    ]
    with pytest.raises(UsageError, match="no prompt is left"):
        prompt_tokens([[{"role": "user", "content": "why"}]], tokenizer, None, 512, 300)


def test_doctor_asks_in_a_conversation_where_there_is_a_template() -> None:
    assert all(isinstance(one, str) for one in built_in(None))
    (message,) = built_in(ChatTemplate.from_files(FILES))[-1]
    assert message == {"role": "user", "content": BUILT_IN[-1]}
