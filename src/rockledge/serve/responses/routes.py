"""The addresses of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from rockledge.serve.api import Api, Work
from rockledge.serve.conversation.generation import chat_generation, chat_prompt
from rockledge.serve.responses.body import ResponseBody, read_response_request
from rockledge.serve.responses.reply import ResponseReply
from rockledge.serve.schema import Reading
from rockledge.serve.served_model import ServedModel
from rockledge.serve.style import RESPONSES


def add_responses(app: FastAPI, api: Api) -> None:
    """Responses, and the length of their input."""

    def work(model: ServedModel, body: object, reading: Reading) -> Work:
        wanted = read_response_request(body, model.sampling, reading)
        generation, shape = chat_generation(model, wanted.conversation, api.limits)
        return Work(model, generation, lambda: ResponseReply(model, wanted, shape))

    @app.post("/v1/responses", openapi_extra=api.takes(ResponseBody, stream=True))
    async def responses(request: Request) -> Response:
        return await api.answer(request, work, RESPONSES)

    def count(model: ServedModel, body: object, reading: Reading) -> dict[str, Any]:
        wanted = read_response_request(body, model.sampling, reading).conversation
        _, ids = chat_prompt(model, wanted.body, wanted.param)
        return {"object": "response.input_tokens", "input_tokens": len(ids)}

    @app.post("/v1/responses/input_tokens", openapi_extra=api.takes(ResponseBody))
    async def input_tokens(request: Request) -> Response:
        return await api.convert(request, count, RESPONSES)
