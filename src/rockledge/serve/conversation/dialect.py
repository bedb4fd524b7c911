"""How a model speaks, as its chat template and vocabulary say: its thoughts, its calls, what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.serve.conversation.call_forms import HERMES, CallForm, form_of
from rockledge.serve.conversation.reasoning import Thoughts, thoughts_of


@dataclass(frozen=True)
class Dialect:
    """`takes_tools`: the template tells the model of tools; otherwise the generic form does. `calls`: how
    calls are written. `thoughts`: the marks around them, None for a model that does not think. `shown_calls`
    and `shown_thoughts`: special tokens that these are recognised by. `developer`: the template knows that
    role. `variables`: what the template reads.
    """

    takes_tools: bool
    calls: CallForm
    thoughts: Thoughts | None
    shown_calls: tuple[int, ...]
    shown_thoughts: tuple[int, ...]
    developer: bool
    variables: frozenset[str]

    @classmethod
    def of(cls, chat: ChatTemplate, tokenizer: Tokenizer) -> Dialect:
        """What a template and a vocabulary say."""
        calls = form_of(chat.sources) if chat.takes_tools else HERMES
        thoughts = thoughts_of(chat.sources, tokenizer)
        marks = () if thoughts is None else (thoughts.opening, thoughts.closing)
        return cls(
            takes_tools=chat.takes_tools,
            calls=calls,
            thoughts=thoughts,
            shown_calls=_special(calls.texts, tokenizer),
            shown_thoughts=_special(marks, tokenizer),
            developer=any("developer" in source for source in chat.sources),
            variables=frozenset(chat.variables()),
        )


def _special(texts: tuple[str, ...], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the special tokens that the texts are, or begin with."""
    names = set(texts) | {"<|channel>" for text in texts if text.startswith("<|channel>")}
    ids = {tokenizer.id(name) for name in names}
    return tuple(sorted(token for token in ids if token is not None and token in tokenizer.special_ids))


def effort_switches(dialect: Dialect, effort: str | None) -> dict[str, Any]:
    """The variables by which a template hears how long to think. One that reads none of them has nothing to
    do with `effort`."""
    if effort is None:
        return {}
    wanted: dict[str, Any] = {"reasoning_effort": effort}
    wanted |= dict.fromkeys(("enable_thinking", "thinking"), effort != "none")
    return {name: value for name, value in wanted.items() if name in dialect.variables}
