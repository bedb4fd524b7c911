"""Prompts of conversations whose texts are data: names of control tokens in them stay text."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from rockledge.errors import UsageError
from rockledge.model.markup import Marks, Markup
from rockledge.serve.conversation.prompt import Conversation

Render = Callable[[Conversation], str]

# What says something by itself; everything else stands within other text.
CONTENTS = ("content", "reasoning_content")


def suspicious(markup: Markup, conversation: Conversation) -> bool:
    """Whether any text of a conversation could be taken for a control token."""
    contents = [message.get(key, "") for message in conversation.messages for key in CONTENTS]
    return any(markup.suspicious(text, edges=True) for text in contents) or any(
        markup.suspicious(text, edges=False) for text in _texts(_parts(conversation))
    )


def encode_untrusted(
    markup: Markup, conversation: Conversation, render: Render, thoughts: Collection[str]
) -> tuple[str, list[int]]:
    """The rendered conversation, and its token ids. `thoughts` are marks that an assistant's own text may
    have, since templates look for them.

    Raises:
        UsageError: the template refuses the messages, or shows a control token in them in a way in which it
            cannot be told from its own.
    """
    plain = render(conversation)
    marks = Marks(plain + json.dumps(_parts(conversation), ensure_ascii=False))
    marked = render(_marked(markup, conversation, marks, thoughts, edges=True))
    if marks.without(marked) != plain:
        # The template looks at how texts begin or end: then only names of control tokens are marked.
        marked = render(_marked(markup, conversation, marks, thoughts, edges=False))
    if marks.escaped_in(marked):
        raise UsageError(
            "the messages hold the name of a control token, which the model's chat template cannot show as "
            "text; leave it out"
        )
    return marks.without(marked), markup.encode(marked, marks)


def _parts(conversation: Conversation) -> list[Any]:
    c = conversation
    return [c.messages, c.tools, c.documents, c.switches]


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, list):
            stack += found
        elif isinstance(found, dict):
            stack += [*found, *found.values()]


def _marked(
    markup: Markup, conversation: Conversation, marks: Marks, thoughts: Collection[str], *, edges: bool
) -> Conversation:
    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return markup.mark(value, marks, edges=False)
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return {walk(key): walk(item) for key, item in value.items()}
        return value

    def message(found: dict[str, Any]) -> dict[str, Any]:
        allowed = thoughts if found["role"] == "assistant" else ()
        return {
            key: markup.mark(value, marks, edges=edges, allowed=allowed) if key in CONTENTS else walk(value)
            for key, value in found.items()
        }

    return replace(
        conversation,
        messages=[message(found) for found in conversation.messages],
        tools=walk(conversation.tools),
        documents=walk(conversation.documents),
        switches=walk(conversation.switches),
    )
