"""`/api/chat`: a body of Ollama's as the request for the next message of a conversation."""

from __future__ import annotations

from typing import Any

import pydantic

from rockledge.serve.api import Work
from rockledge.serve.conversation.body import ConversationBody, ConversationRequest
from rockledge.serve.conversation.generation import chat_generation
from rockledge.serve.conversation.messages import Message, Tool
from rockledge.serve.conversation.tools import functions
from rockledge.serve.limits import Limits
from rockledge.serve.ollama.bodies import GeneratingBody
from rockledge.serve.ollama.reply import Loading, OllamaReply, Timing, as_message, loading
from rockledge.serve.schema import Reading, read_body
from rockledge.serve.served_model import ServedModel


class OllamaChatBody(GeneratingBody):
    """The body of `/api/chat`. Without messages it asks for the model to be loaded."""

    messages: list[Message] = []  # noqa: RUF012 (pydantic copies it)
    tools: list[Tool] = []  # noqa: RUF012

    @pydantic.field_validator("messages", mode="before")
    @classmethod
    def _complete(cls, messages: Any) -> Any:
        """Ollama's messages may lack content, name functions by `tool_name`, and have calls without ids:
        results belong to calls by name, or else by order."""
        if not isinstance(messages, list):
            return messages
        open_calls: list[tuple[str, Any]] = []
        found = []
        for number, message in enumerate(messages):
            if isinstance(message, dict):
                message = _completed(message, number, open_calls)
            found.append(message)
        return found


def _completed(message: dict[str, Any], number: int, open_calls: list[tuple[str, Any]]) -> dict[str, Any]:
    """The message with what is missing; `open_calls`: ids and functions of calls that have no result yet."""
    made = dict(message)
    if made.get("content") is None and not made.get("tool_calls"):
        made["content"] = ""
    calls = made.get("tool_calls")
    if isinstance(calls, list):
        made["tool_calls"] = calls = [
            {**call, "id": call.get("id") or f"{number:05}{place:04}"} if isinstance(call, dict) else call
            for place, call in enumerate(calls)
        ]
        open_calls.clear()
        open_calls += [(call["id"], _function(call)) for call in calls if isinstance(call, dict)]
    if made.get("role") == "tool":
        name = made.get("tool_name")
        if name is not None:
            made.setdefault("name", name)
        chosen = next((call for call in open_calls if call[1] == name), next(iter(open_calls), None))
        if chosen is not None and made.get("tool_call_id") is None:
            open_calls.remove(chosen)
            made["tool_call_id"] = chosen[0]
    return made


def _function(call: dict[str, Any]) -> Any:
    function = call.get("function")
    return function.get("name") if isinstance(function, dict) else None


def chat_work(
    model: ServedModel, body: object, reading: Reading, limits: Limits, timing: Timing
) -> Work | Loading:
    """What a body asks for.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(OllamaChatBody, body, reading)
    if not found.messages:
        return loading(model, found.asked, as_message, found.keep_alive)
    model.require_generates()
    found.options.check(model.context)
    last = found.messages[-1]
    request = ConversationRequest(
        body=ConversationBody.model_construct(
            messages=found.messages,
            tools=found.tools,
            # As in Ollama's templates, which leave the last message open if it is the assistant's.
            continue_final_message=last.role == "assistant" and bool(last.content) and not last.tool_calls,
            **found.thinking(model),
        ),
        options=found.options.generation(
            found.asked, model.sampling, stream=found.stream, constraint=found.constraint()
        ),
        functions=functions(found.tools, None),
        logprobs=found.alternatives,
        truncated=found.truncate,
    )
    request.body.check()
    generation, shape = chat_generation(model, request, limits)
    timing.read()
    return Work(
        model,
        generation,
        lambda: OllamaReply(model, found.asked, as_message, shape, timing, logprobs=found.logprobs),
        found.keep_alive,
    )
