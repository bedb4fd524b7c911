"""Conversations as calibration text: in the model's own chat format, fitted to what its template accepts.

Templates differ in what they refuse: system messages (Gemma, the first Mistral-7B-Instruct), two turns of one
side in a row, roles they do not know. A conversation that is refused is folded, or left out with a note.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate

Message = Mapping[str, Any]

_SYSTEM = ("system", "developer")
_SYSTEM_FOLDED = "the chat template refuses the system message, so it was put in front of the first user turn"
_TURNS_JOINED = "the chat template wants turns to alternate, so neighbouring turns of one side were joined"
# Numbers of conversations that a note lists one by one.
_LISTED = 10


class ConversationRenderer:
    """Renders conversations with one chat template, and remembers which it had to fold or leave out."""

    def __init__(self, chat: ChatTemplate) -> None:
        self._chat = chat
        self._folded: dict[str, list[int]] = defaultdict(list)
        self._refused: dict[str, list[int]] = defaultdict(list)

    def text(self, number: int, messages: Sequence[Message], **given: Sequence[Any] | None) -> str | None:
        """A whole conversation, the `number`th, as text; None when the template refuses it however it is put.
        `given` may hold its `tools` and `documents`."""
        try:
            return self._rendered(messages, **given)
        except UsageError as error:
            reason = str(error)
        folded = folded_system(messages)
        if folded != messages:
            try:
                text = self._rendered(folded, **given)
            except UsageError:
                pass  # the reason for the conversation as it is says more
            else:
                self._folded[_SYSTEM_FOLDED if _has_system(messages) else _TURNS_JOINED].append(number)
                return text
        self._refused[reason].append(number)
        return None

    def notes(self, one: str, several: str) -> list[str]:
        """What was changed or left out, a sentence each; `one` and `several` are words in front of numbers,
        such as "line" and "lines"."""
        folded = [f"{_numbers(n, one, several)}: {how}." for how, n in self._folded.items()]
        left_out = [
            f"{_numbers(n, one, several)} left out of the calibration text: {reason.removesuffix('...')}."
            for reason, n in self._refused.items()
        ]
        return [*folded, *left_out]

    def _rendered(self, messages: Sequence[Message], **given: Any) -> str:
        text = self._chat.render(messages, add_generation_prompt=False, **given)
        # A template that expects content in another form renders the turns, but empty.
        asked = " ".join(_text(m.get("content")) for m in messages if m.get("role") == "user")
        words = set(re.findall(r"\w{3,}", asked))
        if not text.strip() or 2 * sum(word in text for word in words) < len(words):
            raise UsageError("the model's chat template leaves out what the messages say")
        return text


def folded_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation without system messages: their text stands in front of the first user turn. Turns of
    one role that then follow each other become one. Without a user turn nothing changes."""
    system = [_text(m.get("content")) for m in messages if m.get("role") in _SYSTEM]
    turns = [dict(m) for m in messages if m.get("role") not in _SYSTEM]
    first = next((turn for turn in turns if turn.get("role") == "user"), None)
    if first is None:
        return list(messages)
    first["content"] = "\n\n".join(text for text in (*system, _text(first.get("content"))) if text)
    found: list[dict[str, Any]] = []
    for turn in turns:
        if found and _can_merge(found[-1], turn):
            found[-1]["content"] = f"{_text(found[-1]['content'])}\n\n{_text(turn['content'])}"
        else:
            found.append(turn)
    return list(found)


def _has_system(messages: Sequence[Message]) -> bool:
    return any(message.get("role") in _SYSTEM for message in messages)


def _can_merge(before: Message, turn: Message) -> bool:
    """Whether two turns are words of one side and nothing else."""
    return before.keys() == turn.keys() == {"role", "content"} and before["role"] == turn["role"]


def _text(content: Any) -> str:
    """The words of a message's content: a string, or a list of parts of which some hold text."""
    if isinstance(content, list):
        return "\n\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return "" if content is None else str(content)


def _numbers(numbers: Sequence[int], one: str, several: str) -> str:
    if len(numbers) == 1:
        return f"{one} {numbers[0]}"
    listed = ", ".join(map(str, numbers[:_LISTED]))
    return f"{several} {listed}" + (f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else "")
