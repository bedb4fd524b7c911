"""The addresses of Ollama's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

import rockledge
from rockledge.serve.api import Api, Work, failed
from rockledge.serve.embedding import EmbeddingWork
from rockledge.serve.ollama.chat import OllamaChatBody, chat_work
from rockledge.serve.ollama.embed import EmbedBody, EmbeddingsBody, embed_work, embeddings_work
from rockledge.serve.ollama.generate import GenerateBody, generate_work
from rockledge.serve.ollama.listing import resident, show, tags
from rockledge.serve.ollama.management import (
    PULLED,
    REFUSED,
    NamedBody,
    PullBody,
    Refused,
    find_pulled,
    read_pull,
)
from rockledge.serve.ollama.names import find_model
from rockledge.serve.ollama.reply import Loading, Timing
from rockledge.serve.schema import Reading, read_body
from rockledge.serve.served_model import ServedModel
from rockledge.serve.style import OLLAMA, line

VERSION = "0.13.0"
"""The version of Ollama whose API this is. Clients look at it to know what they may ask for, and the version
of this server would say that it is older than Ollama's first one."""

Make = Callable[[ServedModel, object, Reading], Any]


def add_ollama(app: FastAPI, api: Api) -> None:
    """Chat, texts, embeddings, and what is said of models."""

    def add_get(path: str, body: Callable[[], dict[str, Any]]) -> None:
        @app.api_route(path, methods=["GET", "HEAD"], name=path)
        async def get() -> Response:
            return JSONResponse(body())

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def root() -> Response:
        """What clients ask to see whether there is a server; with a console, its page answers first."""
        return PlainTextResponse("Rockledge is running")

    add_get("/api/version", lambda: {"version": VERSION, "rockledge": rockledge.__version__})
    add_get("/api/tags", lambda: tags(api.models))
    add_get("/api/ps", lambda: resident(api.models))

    async def answer(request: Request, make: Callable[[Timing], Make]) -> Response:
        made = make(Timing())

        async def respond() -> Response:
            api.models.require_room()
            work: Work | Loading | EmbeddingWork = await api.read(request, made, find_model)
            if isinstance(work, Work):
                return await api.generate(request, work, OLLAMA)
            if isinstance(work, EmbeddingWork):
                return await api.run(request, work)
            await load(work)
            return JSONResponse(work.reply())

        return await api.respond(respond, OLLAMA)

    async def load(work: Loading) -> None:
        if work.keep_alive_s == 0:
            await api.models.unload(work.model)
        else:
            api.models.release(await api.models.acquire(work.model, work.keep_alive_s))

    @app.post("/api/chat", openapi_extra=api.takes(OllamaChatBody, stream=True))
    async def chat(request: Request) -> Response:
        return await answer(request, lambda timing: partial(chat_work, limits=api.limits, timing=timing))

    @app.post("/api/generate", openapi_extra=api.takes(GenerateBody, stream=True))
    async def generate(request: Request) -> Response:
        return await answer(request, lambda timing: partial(generate_work, limits=api.limits, timing=timing))

    @app.post("/api/embed", openapi_extra=api.takes(EmbedBody))
    async def embed(request: Request) -> Response:
        return await answer(request, lambda timing: partial(embed_work, timing=timing))

    @app.post("/api/embeddings", openapi_extra=api.takes(EmbeddingsBody))
    async def embeddings(request: Request) -> Response:
        return await answer(request, lambda _: embeddings_work)

    @app.post("/api/show", openapi_extra=api.takes(NamedBody))
    async def show_model(request: Request) -> Response:
        def shown(model: ServedModel, body: object, reading: Reading) -> dict[str, Any]:
            read_body(NamedBody, body, reading)
            return show(model)

        async def respond() -> Response:
            return JSONResponse(await api.read(request, shown, find_model))

        return await api.respond(respond, OLLAMA)

    @app.post("/api/pull", openapi_extra=api.takes(PullBody, stream=True))
    async def pull(request: Request) -> Response:
        async def respond() -> Response:
            found = await api.read(request, read_pull, find_pulled)
            if found.stream:
                return StreamingResponse(_pulled(), media_type=OLLAMA.media_type)
            return JSONResponse({"status": PULLED[-1]})

        return await api.respond(respond, OLLAMA)

    for refused in REFUSED:
        _add_refusal(app, refused)


async def _pulled() -> AsyncIterator[str]:
    for status in PULLED:
        yield line({"status": status})


def _add_refusal(app: FastAPI, refused: Refused) -> None:
    @app.api_route(refused.path, methods=[refused.method], include_in_schema=False)
    async def refuse() -> Response:
        return failed(refused.error(), OLLAMA)
