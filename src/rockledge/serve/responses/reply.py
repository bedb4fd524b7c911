"""The answer of `/v1/responses`: one object, or the events that it comes in.

Their order and fields are those of OpenAI's API
(platform.openai.com/docs/api-reference/responses-streaming); thoughts are the items that it has for open
models. Every event has its number.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

from rockledge.serve.conversation.answer_reader import AnswerShape
from rockledge.serve.conversation.blocks import Block, BlockReader, Step
from rockledge.serve.errors import ApiError, printable
from rockledge.serve.logprobs import token_entries
from rockledge.serve.parts import Part, Usage
from rockledge.serve.responses.body import ResponseRequest
from rockledge.serve.served_model import ServedModel

_PREFIXES = {"thoughts": "rs", "text": "msg", "call": "fc"}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


class ResponseReply:
    """Objects `response`, and events."""

    def __init__(self, model: ServedModel, request: ResponseRequest, shape: AnswerShape) -> None:
        self._tokenizer = model.tokenizer
        self._scored = request.conversation.logprobs is not None
        self._reader = BlockReader(shape)
        self._events = 0
        self._ids: dict[int, str] = {}
        self._head = _head(request, model.name)

    def opening(self) -> list[dict[str, Any]]:
        """The response before there is anything in it."""
        return [
            self._event("response.created", response=self._response("in_progress")),
            self._event("response.in_progress", response=self._response("in_progress")),
        ]

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """The events of what is new."""
        return [event for step in self._reader.push(part) for event in self._of_step(step)]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """The whole response once more."""
        response = self._finished(usage)
        return [self._event(f"response.{response['status']}", response=response)]

    def failed(self, error: ApiError) -> list[dict[str, Any]]:
        """The end of a stream that fails."""
        message, param = printable(error.message), error.param
        failure = {"code": "server_error", "message": message}
        return [
            self._event("error", code=error.code or "server_error", message=message, param=param),
            self._event("response.failed", response={**self._response("failed"), "error": failure}),
        ]

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The response in one object."""
        for part in parts:
            self._reader.push(part)
        return self._finished(usage)

    def _finished(self, usage: Usage) -> dict[str, Any]:
        cut = self._reader.finish == "length"
        found = self._response("incomplete" if cut else "completed")
        if cut:
            found["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            found["completed_at"] = int(time.time())
        return {
            **found,
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": self._reader.thought_tokens},
                "total_tokens": usage.prompt + usage.completion,
                **({"dropped_messages": usage.dropped} if usage.dropped else {}),
            },
        }

    def _response(self, status: str) -> dict[str, Any]:
        output = [self._item(block, whole=True) for block in self._reader.blocks]
        return {**self._head, "status": status, "output": output}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        number, self._events = self._events, self._events + 1
        return {"type": kind, "sequence_number": number, **fields}

    def _of_step(self, step: Step) -> Iterable[dict[str, Any]]:
        block = step.block
        make: Callable[[Step, dict[str, Any]], Iterable[dict[str, Any]]] = {
            "thoughts": self._of_thoughts,
            "text": self._of_text,
            "call": self._of_call,
        }[block.kind]
        place = {"item_id": self._id(block), "output_index": block.number}
        if step.kind == "open":
            item = self._item(block, whole=False)
            yield self._event("response.output_item.added", output_index=block.number, item=item)
        yield from make(step, place)
        if step.kind == "close":
            item = self._item(block, whole=True)
            yield self._event("response.output_item.done", output_index=block.number, item=item)

    def _of_text(self, step: Step, place: dict[str, Any]) -> Iterable[dict[str, Any]]:
        place = {**place, "content_index": 0}
        if step.kind == "open":
            yield self._event("response.content_part.added", **place, part=self._text_part("", ()))
        elif step.kind == "grow":
            scores = self._scores(step.tokens)
            yield self._event("response.output_text.delta", **place, delta=step.text, logprobs=scores)
        else:
            part = self._text_part(step.block.text, step.block.tokens)
            yield self._event(
                "response.output_text.done", **place, text=part["text"], logprobs=part["logprobs"]
            )
            yield self._event("response.content_part.done", **place, part=part)

    def _of_thoughts(self, step: Step, place: dict[str, Any]) -> Iterable[dict[str, Any]]:
        place = {**place, "content_index": 0}
        if step.kind == "open":
            yield self._event("response.content_part.added", **place, part=_thoughts_part(""))
        elif step.kind == "grow":
            yield self._event("response.reasoning_text.delta", **place, delta=step.text)
        else:
            thoughts = step.block.text
            yield self._event("response.reasoning_text.done", **place, text=thoughts)
            yield self._event("response.content_part.done", **place, part=_thoughts_part(thoughts))

    def _of_call(self, step: Step, place: dict[str, Any]) -> Iterable[dict[str, Any]]:
        call = step.block.call
        if step.kind != "grow" or call is None:
            return
        arguments = _arguments(step.block)
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event(
            "response.function_call_arguments.done", **place, name=call.name, arguments=arguments
        )

    def _id(self, block: Block) -> str:
        return self._ids.setdefault(block.number, _new_id(_PREFIXES[block.kind]))

    def _item(self, block: Block, *, whole: bool) -> dict[str, Any]:
        """An item of the output; when it is not `whole`, as it is before anything is in it."""
        status = "in_progress" if not whole else "incomplete" if block.cut else "completed"
        head = {"id": self._id(block), "status": status}
        if block.kind == "thoughts":
            content = [_thoughts_part(block.text)] if whole else []
            return {**head, "type": "reasoning", "summary": [], "content": content}
        if block.kind == "text":
            parts = [self._text_part(block.text, block.tokens)] if whole else []
            return {**head, "type": "message", "role": "assistant", "content": parts}
        assert block.call is not None
        return {
            **head,
            "type": "function_call",
            "call_id": block.call_id,
            "name": block.call.name,
            "arguments": _arguments(block) if whole else "",
        }

    def _text_part(self, text: str, tokens: Iterable[Any]) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._scores(tokens)}

    def _scores(self, tokens: Iterable[Any]) -> list[dict[str, Any]]:
        return token_entries(self._tokenizer, tuple(tokens)) if self._scored else []


def _thoughts_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def _arguments(block: Block) -> str:
    assert block.call is not None
    return json.dumps(block.call.arguments, ensure_ascii=False)


def _head(request: ResponseRequest, model: str) -> dict[str, Any]:
    """What a response says of its request."""
    body, options = request.body, request.conversation.options
    tools = [{"description": None, "parameters": None, "strict": None, **tool.given()} for tool in body.tools]
    return {
        "id": _new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "model": options.model or model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": options.sampling.temperature,
        "text": {"format": body.text.format, "verbosity": "medium"},
        "tool_choice": body.tool_choice,
        "tools": [{"type": "function", **tool} for tool in tools],
        "top_logprobs": body.top_logprobs,
        "top_p": options.sampling.top_p,
        "truncation": body.truncation,
        "usage": None,
        "metadata": body.metadata,
    }
