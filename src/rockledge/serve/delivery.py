"""Turns the results of a ticket into an HTTP answer: one JSON object, or server-sent events as they come."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from rockledge.errors import ContextError, RockledgeError, UsageError
from rockledge.serve.errors import ApiError
from rockledge.serve.line import Ticket
from rockledge.serve.parts import Part, Usage

log = logging.getLogger(__name__)
T = TypeVar("T")


class Reply(Protocol):
    """The shape of one endpoint's answers; made anew for every request."""

    def opening(self) -> list[dict[str, Any]]:
        """Chunks sent before any text."""

    def chunk(self, part: Part) -> dict[str, Any]:
        """The streamed form of a part."""

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The chunk that carries only the usage."""

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The answer in one object."""


class DisconnectedError(Exception):
    """The client has disconnected."""


def reply_head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """The fields that all objects of one answer share."""
    name = f"{prefix}-{secrets.token_hex(12)}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


async def read_json(request: Request, limit_bytes: int = 32 << 20) -> object:
    """The JSON value of the request's body.

    Raises:
        ApiError: 400 when it is not JSON, 413 when it is longer than `limit_bytes`.
    """
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > limit_bytes:
            raise ApiError(f"the request body is larger than {limit_bytes >> 20} MiB; shorten it", status=413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the request body is not valid JSON: {error}") from None


async def deliver(
    request: Request,
    ticket: Ticket[Part],
    reply: Reply,
    prompt_tokens: int,
    stream: bool,
    include_usage: bool,
) -> Response:
    """Waits for the first result, so that a failure still has its HTTP status, then answers."""
    results = ticket.results()
    try:
        if not stream:
            parts = await _unless_disconnected(request, _collect(results))
            usage = Usage(prompt_tokens, sum(part.generated for part in parts))
            return JSONResponse(reply.whole(parts, usage))
        first = await _unless_disconnected(request, _next(results))
    except DisconnectedError:
        ticket.cancel()
        return Response(status_code=499)
    except BaseException:
        ticket.cancel()
        raise
    events = _events(first, results, reply, prompt_tokens, include_usage)
    return _EventStream(events, ticket)


class _EventStream(StreamingResponse):
    """Server-sent events. The ticket ends when sending them ends, for any reason."""

    def __init__(self, events: AsyncIterator[str], ticket: Ticket[Part]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.cancel()


async def _collect(results: AsyncIterator[Part]) -> list[Part]:
    return [part async for part in results]


async def _next(results: AsyncIterator[Part]) -> Part | None:
    async for part in results:
        return part
    return None


async def _events(
    first: Part | None,
    results: AsyncIterator[Part],
    reply: Reply,
    prompt_tokens: int,
    include_usage: bool,
) -> AsyncIterator[str]:
    extra: dict[str, Any] = {"usage": None} if include_usage else {}
    generated = 0
    try:
        for chunk in reply.opening():
            yield _event({**chunk, **extra})
        if first is not None:
            generated += first.generated
            yield _event({**reply.chunk(first), **extra})
        async for part in results:
            generated += part.generated
            if part.text or part.tokens or part.finish:
                yield _event({**reply.chunk(part), **extra})
        if include_usage:
            yield _event(reply.closing(Usage(prompt_tokens, generated)))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(as_api_error(error).body())


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise DisconnectedError
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()


def as_api_error(error: Exception) -> ApiError:
    """The error object of anything that went wrong while a request was served."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextError):
        return ApiError(str(error), code="context_length_exceeded")
    if isinstance(error, UsageError):
        return ApiError(str(error))
    if isinstance(error, RockledgeError):
        return ApiError(str(error), status=500)
    log.error("a request failed", exc_info=error)
    return ApiError("the server failed while answering; its log says more", status=500)
