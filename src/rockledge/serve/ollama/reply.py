"""The shape of Ollama's answers: lines of JSON, the last of which says what it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from rockledge.serve.conversation.answer_reader import AnswerReader, AnswerShape, Fragment
from rockledge.serve.conversation.call_forms import Call, new_call_id
from rockledge.serve.logprobs import token_entries
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.served_model import ServedModel

NANOSECONDS = 10**9

Form = Callable[[Fragment, int], dict[str, Any]]
"""How an endpoint writes a stretch of an answer; so many calls came before it."""


def as_message(fragment: Fragment, calls: int = 0) -> dict[str, Any]:
    """As `/api/chat` does."""
    message: dict[str, Any] = {"role": "assistant", "content": fragment.text}
    message |= {"thinking": fragment.thoughts} if fragment.thoughts else {}
    if fragment.calls:
        message["tool_calls"] = [_tool_call(call, index) for index, call in enumerate(fragment.calls, calls)]
    return {"message": message}


def as_response(fragment: Fragment, calls: int = 0) -> dict[str, Any]:
    """As `/api/generate` does."""
    return {"response": fragment.text} | ({"thinking": fragment.thoughts} if fragment.thoughts else {})


def _tool_call(call: Call, index: int) -> dict[str, Any]:
    function = {"index": index, "name": call.name, "arguments": call.arguments}
    return {"id": new_call_id(), "function": function}


class Timing:
    """When a request arrived, when its body had been read, and when its model was loaded."""

    def __init__(self) -> None:
        self._arrived = self._read = self._loaded = time.perf_counter_ns()

    def read(self) -> None:
        """Its body has been read."""
        self._read = self._loaded = time.perf_counter_ns()

    def loaded(self) -> None:
        """Its model is loaded."""
        self._loaded = time.perf_counter_ns()

    def body(self) -> dict[str, int]:
        """Nanoseconds, until now and of loading."""
        return {
            "total_duration": time.perf_counter_ns() - self._arrived,
            "load_duration": self._loaded - self._read,
        }


def head(model: str) -> dict[str, Any]:
    """What every object of an answer begins with."""
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    return {"model": model, "created_at": now.replace("+00:00", "Z")}


@dataclass(frozen=True)
class Loading:
    """What a request without a prompt asks for: its model to be loaded, or with `keep_alive_s` 0 to be
    unloaded. `reply` makes the body of the answer when that is done."""

    model: ServedModel
    keep_alive_s: float | None
    reply: Callable[[], dict[str, Any]]


def loading(model: ServedModel, asked: str, form: Form, keep_alive_s: float | None) -> Loading:
    """That of a request for text; `asked` is what it calls the model."""
    reason = "unload" if keep_alive_s == 0 else "load"

    def reply() -> dict[str, Any]:
        return {**head(asked), **form(Fragment(), 0), "done": True, "done_reason": reason}

    return Loading(model, keep_alive_s, reply)


class OllamaReply:
    """Objects of `/api/chat` and `/api/generate`."""

    def __init__(
        self,
        model: ServedModel,
        asked: str,
        form: Form,
        shape: AnswerShape,
        timing: Timing,
        *,
        logprobs: bool = False,
        context: tuple[int, ...] | None = None,
    ) -> None:
        """`context`: the prompt's tokens, where the answer gives them back together with its own."""
        timing.loaded()
        self._tokenizer = model.tokenizer
        self._asked, self._form, self._timing = asked, form, timing
        self._logprobs = logprobs
        self._context = context
        self._ids: list[int] = []
        self._reader = AnswerReader(shape)
        self._finish: str | None = None

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: text comes at once."""
        return []

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """A line for each kind of thing in a part, none while it is not certain what it is."""
        calls = self._reader.calls
        fragments, scored = self._fragments(part), self._scored(part)
        found = []
        for fragment in fragments or ([Fragment()] if scored else []):
            found.append({**head(self._asked), **self._form(fragment, calls), "done": False, **scored})
            calls, scored = calls + len(fragment.calls), {}
        return found

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """The line that ends the answer."""
        return [self._last(Fragment(), usage)]

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """All of it in one object."""
        part = join_choice(parts, 0)
        fragments = self._fragments(part)
        joined = Fragment(
            "".join(fragment.thoughts for fragment in fragments),
            "".join(fragment.text for fragment in fragments),
            tuple(call for fragment in fragments for call in fragment.calls),
        )
        return {**self._last(joined, usage), **self._scored(part)}

    def _fragments(self, part: Part) -> list[Fragment]:
        self._finish = part.finish or self._finish
        if self._context is not None:
            self._ids += part.ids
        return [*self._reader.push(part.text), *(self._reader.flush() if part.finish else ())]

    def _scored(self, part: Part) -> dict[str, Any]:
        return {"logprobs": token_entries(self._tokenizer, part.tokens)} if self._logprobs else {}

    def _last(self, fragment: Fragment, usage: Usage) -> dict[str, Any]:
        context = {} if self._context is None else {"context": [*self._context, *self._ids]}
        return {
            **head(self._asked),
            **self._form(fragment, 0),
            "done": True,
            "done_reason": self._finish,
            **context,
            **self._timing.body(),
            "prompt_eval_count": usage.prompt,
            "prompt_eval_duration": round(usage.prompt_seconds * NANOSECONDS),
            "eval_count": usage.completion,
            "eval_duration": round(usage.answer_seconds * NANOSECONDS),
            **({"dropped_messages": usage.dropped} if usage.dropped else {}),
        }
