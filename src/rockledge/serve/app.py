"""The web application: routes, error shapes, health, metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from rockledge.artifact.background import BackgroundCheck
from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.chat import ChatReply, chat_parts, chat_prompt, read_chat_request
from rockledge.serve.completions import (
    CompletionReply,
    completion_parts,
    completion_prompts,
    read_completion_request,
)
from rockledge.serve.delivery import as_api_error, deliver, read_json
from rockledge.serve.errors import ApiError
from rockledge.serve.line import Line
from rockledge.serve.metrics import CONTENT_TYPE, metrics_text


class Integrity:
    """Whether the artifact's checksums hold, checked in the background while the server already answers."""

    def __init__(self, verify: Callable[[], None] | None) -> None:
        self._check = None if verify is None else BackgroundCheck(lambda _: verify())

    @property
    def failure(self) -> str | None:
        """The sentence about damage, None as long as none was found."""
        return None if self._check is None else self._check.failure

    @property
    def state(self) -> str:
        """ "unchecked", "checking", "verified" or "damaged"."""
        return "unchecked" if self._check is None else self._check.state

    def start(self) -> None:
        """Begins checking in a thread of its own."""
        if self._check is not None:
            self._check.start()

    def require(self) -> None:
        """Refuses to answer from damaged weights."""
        if self.failure is not None:
            raise ApiError(self.failure, status=503, code="artifact_damaged")


def create_app(
    engine: Engine,
    *,
    queue_limit: int = 64,
    verify: Callable[[], None] | None = None,
    sampling: Sampling = CONVERSATION,
) -> FastAPI:
    """An application that answers from `engine`, one request at a time.

    `queue_limit` requests may be in the server at once (waiting ones included), more get 503. `verify` checks
    the artifact in the background; when it raises a RockledgeError, health and all answers become 503.
    `sampling` is that of requests which name none.
    """
    line = Line(queue_limit)
    integrity = Integrity(verify)
    started = int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        integrity.start()
        yield
        line.close()

    app = FastAPI(title="Rockledge", lifespan=lifespan, openapi_url=None)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        messages = {404: "this server has no such address", 405: "this address does not take that method"}
        return _failure(ApiError(messages.get(error.status_code, error.detail), status=error.status_code))

    @app.get("/health")
    async def health() -> Response:
        body = {
            "status": "ok" if integrity.failure is None else "failed",
            "model": engine.name,
            "requests": len(line),
            "integrity": integrity.state,
            "message": integrity.failure,
            "npu": engine.npu.body(),
        }
        return JSONResponse(body, status_code=200 if integrity.failure is None else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        damaged = integrity.failure is not None
        text = metrics_text(engine, requests=len(line), damaged=damaged)
        return Response(text, media_type=CONTENT_TYPE)

    def model_object() -> dict[str, Any]:
        return {"id": engine.name, "object": "model", "created": started, "owned_by": "rockledge"}

    def require_model(name: str | None) -> None:
        if name is not None and name != engine.name:
            raise ApiError(
                f"the model '{name}' is not served here; ask for '{engine.name}'",
                status=404,
                param="model",
                code="model_not_found",
            )

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [model_object()]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        try:
            require_model(name)
        except ApiError as error:
            return _failure(error)
        return JSONResponse(model_object())

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        try:
            wanted = read_chat_request(await read_json(request), sampling)
            require_model(wanted.options.model)
            integrity.require()
            prompt = chat_prompt(engine, wanted)
            ticket = line.submit(lambda cancelled: chat_parts(engine, wanted, prompt, cancelled))
            stream = wanted.options.stream
            reply = ChatReply(engine.name, engine.tokenizer, wanted.logprobs is not None, stream)
            return await deliver(request, ticket, reply, len(prompt), stream, wanted.options.include_usage)
        except Exception as error:
            return _failure(as_api_error(error))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        try:
            wanted = read_completion_request(await read_json(request), sampling)
            require_model(wanted.options.model)
            integrity.require()
            prompts = completion_prompts(engine, wanted)
            ticket = line.submit(lambda cancelled: completion_parts(engine, wanted, prompts, cancelled))
            reply = CompletionReply(engine.name, engine.tokenizer, wanted)
            total = sum(len(prompt) for prompt in prompts)
            return await deliver(
                request, ticket, reply, total, wanted.options.stream, wanted.options.include_usage
            )
        except Exception as error:
            return _failure(as_api_error(error))

    return app


def _failure(error: ApiError) -> Response:
    headers = {"Retry-After": "1"} if error.code == "server_busy" else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)
