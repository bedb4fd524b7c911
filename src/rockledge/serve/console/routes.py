"""The routes of the page: its files, which anybody may have, and two of data, which need a key as the API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from rockledge.runtime.request import EngineStats
from rockledge.serve.console.files import page_files
from rockledge.serve.console.temperatures import temperatures

# Scripts and styles come from here only, nothing may be sent elsewhere, and a text can never become markup
# (https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/).
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

_COUNTS: Final = (
    "running",
    "waiting",
    "pages",
    "free_pages",
    "cold_pages",
    "preemptions",
    "prompt_tokens",
    "cached_tokens",
    "answer_tokens",
)

# A route that shows that an API is served, by the name of the page's example for it.
_SHOWN_BY: Final = {"openai": "/v1/chat/completions", "ollama": "/api/chat"}


def add_console(
    app: FastAPI,
    sheets: Sequence[Mapping[str, Any]],
    standing: Callable[[], Awaitable[Mapping[str, EngineStats]]],
) -> None:
    """Adds the page. `sheets`: what it shows of each model (`model_sheet`); `standing`: how the engines of
    the models that are loaded stand, by the models' names."""
    for address, (content, media_type) in page_files().items():
        _add_file(app, address, content, media_type)

    @app.get("/console/state", include_in_schema=False)
    async def state() -> Response:
        stats = await standing()
        body = {
            "seconds": time.monotonic(),
            "models": {name: _counts(found) for name, found in stats.items()},
            "temperatures": [found.body() for found in await asyncio.to_thread(temperatures)],
        }
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    @app.get("/console/models", include_in_schema=False)
    async def models() -> Response:
        paths = {getattr(route, "path", None) for route in app.routes}
        apis = [name for name, path in _SHOWN_BY.items() if path in paths]
        return JSONResponse({"models": list(sheets), "apis": apis}, headers={"Cache-Control": "no-store"})


def _add_file(app: FastAPI, address: str, content: bytes, media_type: str) -> None:
    @app.api_route(address, methods=["GET", "HEAD"], include_in_schema=False)
    async def file() -> Response:
        return Response(content, headers={**HEADERS, "Content-Type": media_type})


def _counts(stats: EngineStats) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(stats, name) for name in _COUNTS}
    return {**found, "npu": None if stats.npu is None else stats.npu.state}
