"""`/v1/chat/completions`: messages in, one message out."""

from __future__ import annotations

import json
from typing import Annotated, Any

from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.conversation.answer_reader import AnswerReader, AnswerShape, Fragment
from rockledge.serve.conversation.body import ConversationBody, ConversationRequest
from rockledge.serve.conversation.call_forms import Call, new_call_id
from rockledge.serve.conversation.tools import functions
from rockledge.serve.delivery import reply_head
from rockledge.serve.logprobs import token_entries
from rockledge.serve.options import MAX_TOP_LOGPROBS, GenerationBody
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.schema import DEFAULT_READING, Reading, flag, one_of, read_body, whole, wrong
from rockledge.serve.served_model import ServedModel


class ChatBody(ConversationBody, GenerationBody):
    """The body of `/v1/chat/completions`."""

    logprobs: Annotated[bool, flag()] = False
    top_logprobs: Annotated[int, whole(0, MAX_TOP_LOGPROBS)] = 0
    parallel_tool_calls: Annotated[bool, flag()] = True
    truncation: Annotated[str, one_of("auto", "disabled")] = "disabled"


def read_chat_request(
    body: object, defaults: Sampling = CONVERSATION, reading: Reading = DEFAULT_READING
) -> ConversationRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(ChatBody, body, reading)
    if found.top_logprobs and not found.logprobs:
        raise wrong("top_logprobs", "left out unless 'logprobs' is true")
    found.check()
    options = found.options(defaults)
    if options.max_tokens == 0:
        raise wrong("max_tokens", "at least 1")
    return ConversationRequest(
        body=found,
        options=options,
        functions=functions(found.tools, found.tool_choice),
        one_call=not found.parallel_tool_calls,
        logprobs=found.top_logprobs if found.logprobs else None,
        truncated=found.truncation == "auto",
    )


class ChatReply:
    """Objects `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, model: ServedModel, request: ConversationRequest, shape: AnswerShape) -> None:
        kind = "chat.completion.chunk" if request.options.stream else "chat.completion"
        self._include_usage = request.options.include_usage
        self._head = reply_head("chatcmpl", kind, request.options.model or model.name)
        self._tokenizer = model.tokenizer
        self._logprobs = request.logprobs is not None
        self._choices = request.options.n
        self._readers = [AnswerReader(shape) for _ in range(self._choices)]

    def opening(self) -> list[dict[str, Any]]:
        """The chunks that name the speaker."""
        opened = {"role": "assistant", "content": ""}
        return [self._chunk(choice, opened, None, None) for choice in range(self._choices)]

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """A piece of a message: a chunk for each kind of thing in it, none while it is not certain what it
        is."""
        calls = self._readers[part.choice].calls
        deltas: list[dict[str, Any]] = []
        for fragment in self._fragments(part):
            deltas += _deltas(fragment, calls)
            calls += len(fragment.calls)
        if not deltas and (part.finish or part.tokens):
            deltas = [{}]
        last = len(deltas) - 1
        return [
            self._chunk(
                part.choice,
                delta,
                self._scored(part) if number == 0 else None,
                self._finish(part) if number == last else None,
            )
            for number, delta in enumerate(deltas)
        ]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """The last chunk, when usage was requested."""
        return [{**self._head, "choices": [], "usage": usage.body()}] if self._include_usage else []

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The messages in one object."""
        choices = [self._choice(join_choice(parts, choice)) for choice in range(self._choices)]
        return {**self._head, "choices": choices, "usage": usage.body()}

    def _choice(self, part: Part) -> dict[str, Any]:
        fragments = self._fragments(part)
        text = "".join(fragment.text for fragment in fragments)
        thoughts = "".join(fragment.thoughts for fragment in fragments)
        calls = [_tool_call(call) for fragment in fragments for call in fragment.calls]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if calls else ""),
            "refusal": None,
        }
        message |= {"reasoning_content": thoughts} if thoughts else {}
        message |= {"tool_calls": calls} if calls else {}
        return {
            "index": part.choice,
            "message": message,
            "logprobs": self._scored(part),
            "finish_reason": self._finish(part),
        }

    def _fragments(self, part: Part) -> list[Fragment]:
        reader = self._readers[part.choice]
        return [*reader.push(part.text), *(reader.flush() if part.finish else ())]

    def _finish(self, part: Part) -> str | None:
        called = part.finish == "stop" and self._readers[part.choice].calls
        return "tool_calls" if called else part.finish

    def _scored(self, part: Part) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {"content": token_entries(self._tokenizer, part.tokens), "refusal": None}

    def _chunk(
        self, choice: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        part = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "choices": [part]}


def _deltas(fragment: Fragment, calls: int) -> list[dict[str, Any]]:
    """What is new, in OpenAI's order; of a call first its name, then its arguments. `calls` came before."""
    deltas: list[dict[str, Any]] = []
    if fragment.thoughts:
        deltas.append({"reasoning_content": fragment.thoughts})
    if fragment.text:
        deltas.append({"content": fragment.text})
    for index, call in enumerate(fragment.calls, calls):
        whole = _tool_call(call)
        arguments = whole["function"]["arguments"]
        named = {**whole, "function": {**whole["function"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **named}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    return deltas


def _tool_call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": new_call_id(), "type": "function", "function": function}
