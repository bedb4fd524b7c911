"""Conversations as data: what fits, and their files."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.cli.chat_conversation import Conversation, Message, fitting, load, save
from rockledge.errors import ContextError, UsageError

TEXTS = st.text(max_size=12)


def talk(*texts: str, system: str | None = None) -> Conversation:
    """Messages of user and model by turns."""
    made = Conversation(system)
    for number, text in enumerate(texts):
        made = made.answered(text) if number % 2 else made.asked(text)
    return made


def letters(messages: Sequence[Message]) -> list[int]:
    """A token for each character, and one for each message."""
    return [0] * sum(len(message["content"]) + 1 for message in messages)


def test_the_oldest_exchanges_are_left_out_until_the_rest_fits() -> None:
    conversation = talk("aaaa", "bbbb", "cc", "dd", "e", system="ss")  # 3 + 5 + 5 + 3 + 3 + 2 tokens
    assert fitting(conversation, letters, 22) == ([0] * 21, 0)
    assert fitting(conversation, letters, 21) == ([0] * 11, 2)
    assert fitting(conversation, letters, 11) == ([0] * 5, 4)
    assert fitting(conversation, letters, 6) == ([0] * 5, 4)
    with pytest.raises(
        ContextError, match=r"the message is 1 token too long \(it and the system message take 5"
    ):
        fitting(conversation, letters, 5)
    with pytest.raises(
        ContextError, match=r"the message is 7 tokens too long \(it takes 10, expected at most 3"
    ):
        fitting(talk("x" * 9), letters, 4)


def test_answers_that_do_not_alternate_leave_with_their_question() -> None:
    conversation = talk("q", "a").answered("again").asked("new")
    assert fitting(conversation, letters, 6) == ([0] * 4, 3)


def test_unanswered_ends_with_the_last_question() -> None:
    assert talk("a", "b", "c", "d", system="s").unanswered() == talk("a", "b", "c", system="s")
    assert talk("a").unanswered() == talk("a")
    with pytest.raises(UsageError, match="no message to answer again"):
        Conversation("only a system message").unanswered()


@given(texts=st.lists(TEXTS, max_size=5), system=st.none() | st.text(min_size=1, max_size=12))
def test_files_give_back_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], system: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "talk.json"
    conversation = talk(*texts, system=system)
    save(conversation, path, overwrite=True)
    assert load(path) == conversation
    path.write_text(json.dumps({"messages": conversation.messages(), "turns": []}))  # chat --json
    assert load(path) == conversation


def test_a_file_is_only_replaced_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"talk.json exists; .* --overwrite"):
        save(talk("a"), path, overwrite=False)
    assert path.read_text() == "mine"
    with pytest.raises(UsageError, match="is a directory"):
        save(talk("a"), tmp_path, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    path = tmp_path / "talk.json"
    if overwrite:
        path.write_text("mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save(talk("a"), path, overwrite)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"] * overwrite


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": 1}', "no list of messages"),
        (b"[1]", "message 1 of .* is not an object"),
        (b'[{"role": "user"}]', "message 1 of .* role and content"),
        (b'[{"role": "user", "content": "a", "tool_calls": []}]', "expected just these two"),
        (b'[{"role": "tool", "content": "a"}]', "has the role 'tool'"),
        (b'[{"role": [], "content": "a"}]', "has the role"),
        (b'[{"role": "user", "content": null}]', "content of message 1 of .* is not a text"),
        (b'[{"role": "user", "content": "\\ud800"}]', "is not a text"),
        (
            b'[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]',
            "message 2 of .* is a system message",
        ),
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, written: bytes, wrong: str) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(written)
    with pytest.raises(UsageError, match=wrong):
        load(path)


def test_what_is_not_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is not a file"):
        load(tmp_path / "pipe")
    with pytest.raises(UsageError, match="none does not exist"):
        load(tmp_path / "none")


def test_a_device_is_not_replaced_and_a_long_name_leaves_nothing(tmp_path: Path) -> None:
    pipe, talk = tmp_path / "pipe", Conversation(None, ({"role": "user", "content": "a"},))
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not an ordinary file"):
        save(talk, pipe, overwrite=True)
    assert pipe.is_fifo()
    longest = tmp_path / ("x" * 250)
    save(talk, longest, overwrite=False)
    assert load(longest) == talk
    assert sorted(tmp_path.iterdir()) == sorted([pipe, longest])
