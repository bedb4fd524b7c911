"""The short Python API: text or messages in, text out."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.runtime.artifacts import BOS, VARIANTS, write_artifact

import rockledge
from rockledge.errors import ContextError, UsageError

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def model(artifact_path: Callable[[str], Path]) -> Iterator[rockledge.Model]:
    with rockledge.Model.load(artifact_path("rotated-tied"), threads=1, ctx=128) as loaded:
        yield loaded


def test_a_text_is_continued(model: rockledge.Model) -> None:
    assert model.tokens("abc") == [BOS, *model.engine.tokenizer.encode("abc", bos=False)]
    text = model.generate("abc", max_tokens=20, temperature=1.0, seed=3)
    assert text
    assert text == model.generate("abc", max_tokens=20, temperature=1.0, seed=3)


def test_messages_go_through_the_chat_template(model: rockledge.Model) -> None:
    prompt = "<s>user:hello\n>"
    assert model.tokens(MESSAGES) == model.engine.tokenizer.encode(prompt, bos=False)
    assert model.tokens(MESSAGES)[0] == BOS
    assert model.tokens(MESSAGES).count(BOS) == 1


def test_streamed_pieces_join_to_the_whole(model: rockledge.Model) -> None:
    settings = {"max_tokens": 30, "temperature": 1.0, "seed": 11}
    pieces = model.generate(MESSAGES, stream=True, **settings)
    assert "".join(pieces) == model.generate(MESSAGES, **settings)


def test_stop_strings(model: rockledge.Model) -> None:
    text = model.generate("abc", max_tokens=30, temperature=1.0, seed=3)
    cut = model.generate("abc", max_tokens=30, temperature=1.0, seed=3, stop=[text[5:7]])
    assert cut == text[: text.index(text[5:7])]


def test_too_long_a_prompt_fails_at_once(model: rockledge.Model) -> None:
    with pytest.raises(ContextError):
        model.generate("x" * 200, stream=True)


def test_messages_need_a_template(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "m", VARIANTS["tied"], template=None)
    refused = pytest.raises(UsageError, match="no chat template")
    with rockledge.Model.load(path, threads=1, ctx=32) as model, refused:
        model.generate(MESSAGES)
