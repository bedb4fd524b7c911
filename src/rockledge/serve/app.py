"""The web application: the routes of all APIs, health, metrics, and what stands around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

import rockledge
from rockledge.runtime.request import EngineStats
from rockledge.serve.anthropic.routes import add_anthropic
from rockledge.serve.api import Api, failed
from rockledge.serve.console.routes import add_console
from rockledge.serve.errors import ApiError, shutting_down
from rockledge.serve.health import add_health
from rockledge.serve.infill import add_infill
from rockledge.serve.limits import Limits
from rockledge.serve.metrics import Counted, Metrics
from rockledge.serve.ollama.routes import add_ollama
from rockledge.serve.openai.routes import add_openai
from rockledge.serve.openapi import METRICS_ANSWER, api_document
from rockledge.serve.rerank.routes import add_rerank
from rockledge.serve.residency.models import Models
from rockledge.serve.responses.routes import add_responses
from rockledge.serve.safety.checks import Safety, protect
from rockledge.serve.safety.refusal import refuse
from rockledge.serve.style import style_of
from rockledge.serve.tokens import add_tokens


def create_app(
    models: Models,
    *,
    limits: Limits | None = None,
    safety: Safety | None = None,
    strict: bool = False,
    sheets: Sequence[Mapping[str, Any]] | None = None,
) -> FastAPI:
    """An application that answers with `models`.

    `safety`: who may ask. `strict`: requests may have only what the API that they use has, as it has it.
    `sheets`: what the console shows of each model (`model_sheet`); None: there is no console.
    """
    api = Api(models, Limits() if limits is None else limits, strict=strict)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        models.start()
        yield
        models.stop()
        api.close()

    # A redirect would name this server as it sees itself: from behind a proxy with TLS, with http.
    app = FastAPI(title="Rockledge", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    protect(app, Safety() if safety is None else safety)
    app.add_middleware(_CleanEnd)
    metrics = Metrics(models)
    app.add_middleware(Counted, metrics=metrics)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        messages = {404: "this server has no such address", 405: "this address does not take that method"}
        message = messages.get(error.status_code, error.detail)
        found = ApiError(message, status=error.status_code, headers=dict(error.headers or {}))
        return failed(found, style_of(request.url.path))

    async def standing() -> dict[str, EngineStats]:
        return {one.model.name: await one.front.fresh_stats() for one in models.running}

    if sheets is not None:
        add_console(app, sheets, standing)

    @app.api_route(
        "/metrics", methods=["GET", "HEAD"], response_class=PlainTextResponse, openapi_extra=METRICS_ANSWER
    )
    async def show_metrics(request: Request) -> Response:
        text, content_type = await metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return JSONResponse(api_document(app, rockledge.__version__, api.bodies))

    add_health(app, models)
    add_openai(app, api)
    add_rerank(app, api)
    add_infill(app, api)
    add_responses(app, api)
    add_anthropic(app, api)
    add_tokens(app, api)
    add_ollama(app, api)
    return app


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
                await refuse(shutting_down(), scope, receive, send)
