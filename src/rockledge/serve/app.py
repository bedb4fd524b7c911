"""The web application: routes, error shapes, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

import rockledge
from rockledge.runtime.request import EngineStats
from rockledge.serve.authentication import client_of
from rockledge.serve.chat import ChatBody, ChatReply, ChatRequest, chat_generation, read_chat_request
from rockledge.serve.completions import (
    CompletionBody,
    CompletionReply,
    CompletionRequest,
    completion_generation,
    read_completion_request,
)
from rockledge.serve.console.routes import add_console
from rockledge.serve.delivery import Reply, as_api_error, deliver
from rockledge.serve.errors import ApiError, shutting_down
from rockledge.serve.front import Front
from rockledge.serve.generation import Answers, Generation
from rockledge.serve.health import add_health
from rockledge.serve.intake import DisconnectedError, Intake
from rockledge.serve.integrity import Integrity
from rockledge.serve.limits import Limits
from rockledge.serve.metrics import Counted, Metrics
from rockledge.serve.openapi import api_document, takes
from rockledge.serve.options import Options
from rockledge.serve.safety import Safety, protect
from rockledge.serve.schema import Reading
from rockledge.serve.served_model import ServedModel
from rockledge.serve.tokens import MessagesBody, TextBody, TokensBody, detokenize, tokenize

# Nobody reads it; the access log has it, as nginx's does.
CLIENT_CLOSED_REQUEST = 499


def create_app(
    front: Front,
    model: ServedModel,
    *,
    integrity: Integrity | None = None,
    limits: Limits | None = None,
    safety: Safety | None = None,
    strict: bool = False,
    sheets: Sequence[Mapping[str, Any]] | None = None,
) -> FastAPI:
    """An application that answers with `model`, whose engine `front` reaches.

    `integrity`: whether the model's file is whole; when it is not, health and all answers are 503.
    `safety`: who may ask. `strict`: requests may have only what OpenAI's API has, as it has it.
    `sheets`: what the console shows of each model (`model_sheet`); None: there is no console.
    """
    whole = Integrity() if integrity is None else integrity
    bounds = Limits() if limits is None else limits
    intake = Intake(bounds, model.context)
    reading = Reading(strict=strict, vocab=model.vocab)
    started = int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def tell(error: ApiError) -> None:
            damaged = error.code == "artifact_damaged"
            loop.call_soon_threadsafe(front.fail if damaged else front.interrupt, error)

        front.start()
        whole.start(tell)
        yield
        whole.close()
        intake.close()

    app = FastAPI(title="Rockledge", lifespan=lifespan, openapi_url=None)
    protect(app, Safety() if safety is None else safety)
    app.add_middleware(_CleanEnd)
    metrics = Metrics(model.name)
    app.add_middleware(Counted, metrics=metrics)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        messages = {404: "this server has no such address", 405: "this address does not take that method"}
        message = messages.get(error.status_code, error.detail)
        return _failure(ApiError(message, status=error.status_code, headers=dict(error.headers or {})))

    add_health(app, front, whole, model.name)

    async def standing() -> dict[str, EngineStats]:
        return {model.name: await front.fresh_stats()}

    if sheets is not None:
        add_console(app, sheets, standing)

    @app.api_route("/metrics", methods=["GET", "HEAD"])
    async def show_metrics(request: Request) -> Response:
        stats = await front.fresh_stats()
        text, content_type = metrics.text(
            stats,
            requests=len(front),
            damaged=whole.failure is not None,
            accept=request.headers.get("accept", ""),
        )
        return Response(text, headers={"Content-Type": content_type})

    names = (model.name, *model.aliases)

    def model_object(name: str) -> dict[str, Any]:
        context = {"context_length": model.context, "max_model_len": model.context}  # OpenRouter's, vLLM's
        return {"id": name, "object": "model", "created": started, "owned_by": "rockledge", **context}

    def require_model(name: str | None) -> None:
        if name is not None and name not in names:
            raise ApiError(
                f"the model '{name}' is not served here; ask for '{model.name}'",
                status=404,
                param="model",
                code="model_not_found",
            )

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [model_object(name) for name in names]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        try:
            require_model(name)
        except ApiError as error:
            return _failure(error)
        return JSONResponse(model_object(name))

    async def answer(
        request: Request,
        make: Callable[[object], tuple[Options, Generation, Callable[[], Reply]]],
    ) -> Response:
        try:
            whole.require()
            front.require_room()
            options, work, reply = await intake.read(request, make)
            whole.require()
            answers = Answers(front, model.tokenizer, work, client_of(request))
            return await deliver(request, answers, reply(), options)
        except DisconnectedError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return _failure(as_api_error(error))

    @app.post("/v1/chat/completions", openapi_extra=takes(ChatBody, stream=True))
    async def chat(request: Request) -> Response:
        def make(body: object) -> tuple[Options, Generation, Callable[[], Reply]]:
            wanted: ChatRequest = read_chat_request(body, model.sampling, reading)
            require_model(wanted.options.model)
            work, shape = chat_generation(model, wanted, bounds)
            return wanted.options, work, lambda: ChatReply(model, wanted, shape)

        return await answer(request, make)

    @app.post("/v1/completions", openapi_extra=takes(CompletionBody, stream=True))
    async def completions(request: Request) -> Response:
        def make(body: object) -> tuple[Options, Generation, Callable[[], Reply]]:
            wanted: CompletionRequest = read_completion_request(body, model.sampling, reading)
            require_model(wanted.options.model)
            work = completion_generation(model, wanted, bounds)
            return wanted.options, work, lambda: CompletionReply(model, wanted)

        return await answer(request, make)

    async def convert(request: Request, work: Callable[[object], tuple[str | None, Any]]) -> Response:
        try:
            wanted, found = await intake.read(request, work)
            require_model(wanted)
            return JSONResponse(found)
        except DisconnectedError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return _failure(as_api_error(error))

    @app.post("/tokenize", openapi_extra=takes(TextBody, MessagesBody))
    async def to_tokens(request: Request) -> Response:
        return await convert(request, lambda body: tokenize(model, body, reading))

    @app.post("/detokenize", openapi_extra=takes(TokensBody))
    async def to_text(request: Request) -> Response:
        return await convert(request, lambda body: detokenize(model, body, reading))

    schemas = (ChatBody, CompletionBody, TextBody, MessagesBody, TokensBody)

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return JSONResponse(api_document(app, rockledge.__version__, schemas))

    return app


def _failure(error: ApiError) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


class _CleanEnd:
    """Ends what is cancelled when the server stops as an API does: with an error object where an answer has
    not begun, and without a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if not begun:
                await _failure(shutting_down())(scope, receive, send)
