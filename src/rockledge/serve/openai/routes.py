"""The addresses of OpenAI's API."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from rockledge.serve.api import Api, Work, failed
from rockledge.serve.conversation.generation import chat_generation
from rockledge.serve.errors import ApiError
from rockledge.serve.openai.chat import ChatBody, ChatReply, read_chat_request
from rockledge.serve.openai.completions import (
    CompletionBody,
    CompletionReply,
    completion_generation,
    read_completion_request,
)
from rockledge.serve.openai.embeddings import EmbeddingBody, embedding_work
from rockledge.serve.schema import Reading
from rockledge.serve.served_model import ServedModel


def add_openai(app: FastAPI, api: Api) -> None:
    """Models, chat completions, completions and embeddings."""
    started = int(time.time())

    def model_object(model: ServedModel, name: str) -> dict[str, Any]:
        context = {"context_length": model.context, "max_model_len": model.context}  # OpenRouter's, vLLM's
        return {"id": name, "object": "model", "created": started, "owned_by": "rockledge", **context}

    @app.get("/v1/models")
    async def models() -> Response:
        found = [model_object(model, name) for model in api.models for name in model.names]
        return JSONResponse({"object": "list", "data": found})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        try:
            return JSONResponse(model_object(api.models.find(name), name))
        except ApiError as error:
            return failed(error)

    def chat_work(model: ServedModel, body: object, reading: Reading) -> Work:
        wanted = read_chat_request(body, model.sampling, reading)
        generation, shape = chat_generation(model, wanted, api.limits)
        return Work(model, generation, lambda: ChatReply(model, wanted, shape))

    @app.post("/v1/chat/completions", openapi_extra=api.takes(ChatBody, stream=True))
    async def chat(request: Request) -> Response:
        return await api.answer(request, chat_work)

    @app.post("/v1/embeddings", openapi_extra=api.takes(EmbeddingBody))
    async def embeddings(request: Request) -> Response:
        return await api.embed(request, embedding_work)

    def completion_work(model: ServedModel, body: object, reading: Reading) -> Work:
        wanted = read_completion_request(body, model.sampling, reading)
        generation = completion_generation(model, wanted, api.limits)
        return Work(model, generation, lambda: CompletionReply(model, wanted))

    @app.post("/v1/completions", openapi_extra=api.takes(CompletionBody, stream=True))
    async def completions(request: Request) -> Response:
        return await api.answer(request, completion_work)
