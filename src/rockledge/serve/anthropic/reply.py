"""The answer of `/v1/messages`: one message, or the events that it comes in.

Their order and fields are those of Anthropic's API (docs.claude.com/en/docs/build-with-claude/streaming).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

from rockledge.serve.anthropic.body import MessagesRequest
from rockledge.serve.conversation.answer_reader import AnswerShape
from rockledge.serve.conversation.blocks import Block, BlockReader, Step
from rockledge.serve.parts import Part, Usage
from rockledge.serve.served_model import ServedModel

SIGNATURE = "rockledge"
"""Clients send no thoughts back that have no signature. This one proves nothing."""


class MessageReply:
    """Objects `message`, and events."""

    def __init__(
        self, model: ServedModel, request: MessagesRequest, shape: AnswerShape, prompt_tokens: int
    ) -> None:
        self._reader = BlockReader(shape)
        self._thoughts = request.thoughts
        self._prompt_tokens = prompt_tokens
        self._head = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": request.conversation.options.model or model.name,
        }

    def opening(self) -> list[dict[str, Any]]:
        """The message before there is anything in it. How much of its prompt was found in the cache is known
        at its end."""
        usage = _usage(Usage(self._prompt_tokens, 0))
        stopped = {"stop_reason": None, "stop_sequence": None}
        message: dict[str, Any] = {**self._head, "content": [], **stopped, "usage": usage}
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """The events of what is new."""
        return [event for step in self._reader.push(part) for event in self._of_step(step)]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Why the message ended, and what it took."""
        return [
            {"type": "message_delta", "delta": self._stopped(), "usage": self._used(usage)},
            {"type": "message_stop"},
        ]

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The message in one object."""
        for part in parts:
            self._reader.push(part)
        content = [self._block(block) for block in self._reader.blocks]
        return {**self._head, "content": content, **self._stopped(), "usage": self._used(usage)}

    def _stopped(self) -> dict[str, Any]:
        reader = self._reader
        stop = None
        if reader.finish == "length":
            reason = "max_tokens"
        elif reader.called:
            reason = "tool_use"
        elif reader.stop is not None:
            reason, stop = "stop_sequence", reader.stop
        else:
            reason = "end_turn"
        return {"stop_reason": reason, "stop_sequence": stop}

    def _used(self, usage: Usage) -> dict[str, Any]:
        details = {"thinking_tokens": self._reader.thought_tokens}
        return {**_usage(usage), "output_tokens_details": details}

    def _of_step(self, step: Step) -> Iterable[dict[str, Any]]:
        block, place = step.block, {"index": step.block.number}
        if step.kind == "open":
            yield {"type": "content_block_start", **place, "content_block": self._block(block, empty=True)}
        elif step.kind == "grow":
            delta = self._delta(step)
            if delta is not None:
                yield {"type": "content_block_delta", **place, "delta": delta}
        else:
            if block.kind == "thoughts":
                signed = {"type": "signature_delta", "signature": SIGNATURE}
                yield {"type": "content_block_delta", **place, "delta": signed}
            yield {"type": "content_block_stop", **place}

    def _delta(self, step: Step) -> dict[str, Any] | None:
        block = step.block
        if block.kind == "thoughts":
            return {"type": "thinking_delta", "thinking": step.text} if self._thoughts else None
        if block.kind == "text":
            return {"type": "text_delta", "text": step.text}
        assert block.call is not None
        arguments = json.dumps(block.call.arguments, ensure_ascii=False)
        return {"type": "input_json_delta", "partial_json": arguments}

    def _block(self, block: Block, *, empty: bool = False) -> dict[str, Any]:
        """A block of content; `empty`, as it is before anything is in it."""
        text = "" if empty else block.text
        if block.kind == "thoughts":
            signature = "" if empty else SIGNATURE
            return {"type": "thinking", "thinking": text if self._thoughts else "", "signature": signature}
        if block.kind == "text":
            return {"type": "text", "text": text}
        assert block.call is not None
        arguments = {} if empty else block.call.arguments
        return {"type": "tool_use", "id": block.call_id, "name": block.call.name, "input": arguments}


def _usage(usage: Usage) -> dict[str, Any]:
    """What Anthropic counts: tokens of the prompt that were read, and those that were found in the cache."""
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }
