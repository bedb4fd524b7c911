"""The addresses of Anthropic's Messages API. The header `anthropic-version` may be left out."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from rockledge.serve.anthropic.body import (
    AnthropicBody,
    AnthropicPromptBody,
    read_messages_request,
    read_prompt,
)
from rockledge.serve.anthropic.reply import MessageReply
from rockledge.serve.api import Api, Work
from rockledge.serve.conversation.generation import chat_generation, chat_prompt
from rockledge.serve.schema import Reading, read_body
from rockledge.serve.served_model import ServedModel
from rockledge.serve.style import ANTHROPIC


def add_anthropic(app: FastAPI, api: Api) -> None:
    """Messages, and the length of their prompts."""

    def work(model: ServedModel, body: object, reading: Reading) -> Work:
        wanted = read_messages_request(body, model.sampling, reading)
        generation, shape = chat_generation(model, wanted.conversation, api.limits)
        tokens = len(generation.prompts[0])
        return Work(model, generation, lambda: MessageReply(model, wanted, shape, tokens))

    @app.post("/v1/messages", openapi_extra=api.takes(AnthropicBody, stream=True))
    async def messages(request: Request) -> Response:
        return await api.answer(request, work, ANTHROPIC)

    def count(model: ServedModel, body: object, reading: Reading) -> dict[str, Any]:
        wanted, _ = read_prompt(read_body(AnthropicPromptBody, body, reading), reading)
        _, ids = chat_prompt(model, wanted)
        return {"input_tokens": len(ids)}

    @app.post("/v1/messages/count_tokens", openapi_extra=api.takes(AnthropicPromptBody))
    async def count_tokens(request: Request) -> Response:
        return await api.convert(request, count, ANTHROPIC)
