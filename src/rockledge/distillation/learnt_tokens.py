"""Which tokens of a document are learnt: all of a text, of a conversation the answers alone.

A conversation is rendered by the chat template once whole, and once up to each answer with the opening of the
answer. Where the whole text begins with such a part, what follows it up to the next turn is the answer with
what ends it (<|im_end|>), which a student must learn to write too. Tokens are those of the whole text, so
they are the ones that serving makes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.distillation.documents import Document
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Tokens:
    """Token ids int64 [T] of a document, and which of them are learnt, bool [T]; never the first, which
    nothing comes before."""

    ids: npt.NDArray[np.int64]
    learnt: npt.NDArray[np.bool_]


def text_tokens(text: str, tokenizer: Tokenizer, end: int | None) -> Tokens:
    """Of a text: beginning as the model's texts do, and ending with the token `end`, where there is one."""
    ids = tokenizer.encode(text, bos=True) + ([] if end is None else [end])
    return _learnt(ids, np.ones(len(ids), np.bool_))


def conversation_tokens(document: Document, tokenizer: Tokenizer, chat: ChatTemplate) -> Tokens:
    """Of a conversation; UsageError with its place where the template refuses it, or where it shows no
    answer."""
    messages, tools = list(document.messages), list(document.tools) or None
    try:
        whole = chat.render(messages, add_generation_prompt=False, tools=tools)
        spans = []
        for place, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            before = chat.render(messages[:place], add_generation_prompt=True, tools=tools)
            after = chat.render(messages[: place + 1], add_generation_prompt=False, tools=tools)
            start = _shared(before, after)
            # A template may shorten earlier answers once another follows (thoughts of Qwen3).
            if whole.startswith(before) and whole.startswith(after) and start == len(before):
                spans.append((start, len(after)))
    except UsageError as error:
        raise UsageError(f"{document.place}: {error}") from error
    if not spans:
        raise UsageError(
            f"{document.place} shows no answer of the assistant through the chat template; "
            'add a message with role "assistant", or give its text as "text"'
        )
    ids = tokenizer.encode(whole, bos=False)
    ends = np.cumsum([len(tokenizer.token_bytes(i)) for i in ids])
    if not len(ends) or ends[-1] < len(whole.encode(errors="replace")):
        raise UsageError(
            f"{document.place}: the tokenizer drops a part of the conversation, so answers cannot be told "
            'from questions; give its text as "text"'
        )
    shift = ends[-1] - len(whole.encode(errors="replace"))  # a space that the encoder put in front
    ends = ends - shift
    learnt = np.zeros(len(ids), np.bool_)
    for first, last in spans:
        low, high = (len(whole[:place].encode(errors="replace")) for place in (first, last))
        learnt |= (ends > low) & (ends <= high)
    return _learnt(ids, learnt)


def _learnt(ids: Sequence[int], learnt: npt.NDArray[np.bool_]) -> Tokens:
    learnt[:1] = False
    return Tokens(np.array(ids, np.int64), learnt)


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    least = min(len(one), len(other))
    return next((i for i in range(least) if one[i] != other[i]), least)
