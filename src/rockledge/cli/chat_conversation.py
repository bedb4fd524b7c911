"""A conversation as data: its messages, what of it fits into a context, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rockledge.cli.sizes import counted
from rockledge.errors import ContextError, UsageError
from rockledge.units import show_size

Message = dict[str, str]
Tokens = Callable[[Sequence[Message]], list[int]]  # token ids of the prompt of a conversation

LARGEST_FILE = 64 << 20  # bytes; a context of a million tokens is some megabytes of text
_TURNS = ("user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """The system message, and the messages of user and model in their order. Never changed in place, so that
    a turn that fails leaves the conversation as it was."""

    system: str | None = None
    turns: tuple[Message, ...] = ()

    def messages(self, left_out: int = 0) -> list[Message]:
        """All messages as a chat template takes them, without the `left_out` oldest turns."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns[left_out:]]

    def asked(self, text: str) -> Conversation:
        """With a message of the user at its end."""
        return Conversation(self.system, (*self.turns, {"role": "user", "content": text}))

    def answered(self, text: str) -> Conversation:
        """With an answer at its end."""
        return Conversation(self.system, (*self.turns, {"role": "assistant", "content": text}))

    def unanswered(self) -> Conversation:
        """Up to the last message of the user. UsageError where there is none."""
        last = max((i for i, turn in enumerate(self.turns) if turn["role"] == "user"), default=-1)
        if last < 0:
            raise UsageError("there is no message to answer again; type one")
        return Conversation(self.system, self.turns[: last + 1])


def fitting(conversation: Conversation, tokens: Tokens, context: int) -> tuple[list[int], int]:
    """The prompt of a conversation that ends with a message of the user, and how many of its oldest turns
    had to be left out for it, always up to the next message of the user. One token is kept for the answer.

    Raises ContextError, which says by how many tokens, where the last message alone is too long.
    """
    turns = conversation.turns
    starts = [0, *(i for i, turn in enumerate(turns) if turn["role"] == "user" and i > 0)]
    prompt: list[int] = []
    for start in starts:
        prompt = tokens(conversation.messages(start))
        if len(prompt) < context:
            return prompt, start
    excess = len(prompt) - (context - 1)
    parts = "it and the system message take" if conversation.system else "it takes"
    raise ContextError(
        f"the message is {counted(excess, 'token')} too long ({parts} {len(prompt)}, expected at most "
        f"{context - 1}); the conversation is as before"
    )


def save(conversation: Conversation, path: Path, overwrite: bool) -> None:
    """Writes the messages as a JSON list. UsageError for a file that exists, unless `overwrite`; a failure
    leaves neither half a file nor an old one changed."""
    text = json.dumps(conversation.messages(), ensure_ascii=False, indent=2) + "\n"
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "not an ordinary file"
        raise UsageError(f"{path} is {what}, expected the name of a file")
    if not overwrite:
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            raise UsageError(f"{path} exists; give another name, or: /save {path} --overwrite") from None
    # Not of its name, which may be as long as names can be.
    partial = path.with_name(f".rockledge.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        if not overwrite:
            path.unlink(missing_ok=True)
        raise


def load(path: Path) -> Conversation:
    """Reads what `save` wrote, or what `chat --json` printed. UsageError for anything else."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; give a file that /save wrote")
    if path.stat().st_size > LARGEST_FILE:
        raise UsageError(
            f"{path} is too large for a conversation, expected at most {show_size(LARGEST_FILE)}"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON; give a file that /save wrote") from None
    messages = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(messages, list):
        raise UsageError(f"{path} has no list of messages; give a file that /save wrote")
    checked = [_checked(message, number, path) for number, message in enumerate(messages, 1)]
    system = checked.pop(0)["content"] if checked and checked[0]["role"] == "system" else None
    for number, message in enumerate(checked, 2 if system is not None else 1):
        if message["role"] not in _TURNS:
            raise UsageError(f"message {number} of {path} is a system message, expected it only as the first")
    return Conversation(system or None, tuple(checked))


def _checked(message: Any, number: int, path: Path) -> Message:
    where = f"message {number} of {path}"
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise UsageError(f"{where} is not an object of role and content, expected just these two")
    role, content = message["role"], message["content"]
    if role not in ("system", *_TURNS):
        raise UsageError(f"{where} has the role {role!r}, expected system, user or assistant")
    if not isinstance(content, str) or not _encodes(content):
        raise UsageError(f"the content of {where} is not a text")
    return {"role": role, "content": content}


def _encodes(text: str) -> bool:
    """Whether text is Unicode as a tokenizer takes it: JSON can hold half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
