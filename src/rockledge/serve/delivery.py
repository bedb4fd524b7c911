"""Turns the parts of an answer into an HTTP response: one JSON object, or server-sent events as they come."""

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
from rockledge.serve.generation import Answers
from rockledge.serve.intake import DisconnectedError
from rockledge.serve.options import Options
from rockledge.serve.parts import Part, Usage

log = logging.getLogger(__name__)
T = TypeVar("T")


class Reply(Protocol):
    """The shape of one endpoint's answers; made anew for every request."""

    def opening(self) -> list[dict[str, Any]]:
        """Chunks sent before any text."""

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """The streamed form of a part."""

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The chunk that carries only the usage."""

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The answer in one object."""


def reply_head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """The fields that all objects of one answer share."""
    name = f"{prefix}-{secrets.token_hex(12)}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


async def deliver(request: Request, answers: Answers, reply: Reply, options: Options) -> Response:
    """Waits for the first part, so that a failure still has its HTTP status, then answers.

    Raises:
        DisconnectedError: the client has left.
        ApiError: the first of the requests that failed.
    """
    parts = answers.parts()
    try:
        if not options.stream:
            found = await _unless_disconnected(request, _collect(parts))
            answers.close()
            return JSONResponse(reply.whole(found, answers.usage))
        first = await _unless_disconnected(request, _next(parts))
    except BaseException:
        answers.close()
        raise
    return _EventStream(_events(first, parts, answers, reply, options), answers)


class _EventStream(StreamingResponse):
    """Server-sent events. Work for them ends when sending them ends, for any reason."""

    def __init__(self, events: AsyncIterator[str], answers: Answers) -> None:
        # Without the second, nginx holds events back until it has some thousand bytes of them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.close()


async def _collect(parts: AsyncIterator[Part]) -> list[Part]:
    return [part async for part in parts]


async def _next(parts: AsyncIterator[Part]) -> Part | None:
    async for part in parts:
        return part
    return None


async def _events(
    first: Part | None, parts: AsyncIterator[Part], answers: Answers, reply: Reply, options: Options
) -> AsyncIterator[str]:
    def usage() -> dict[str, Any]:
        if not options.include_usage:
            return {}
        return {"usage": answers.usage.body() if options.continuous_usage else None}

    try:
        for chunk in reply.opening():
            yield _event({**chunk, **usage()})
        for chunk in reply.chunks(first) if first is not None else ():
            yield _event({**chunk, **usage()})
        async for part in parts:
            for chunk in reply.chunks(part):
                yield _event({**chunk, **usage()})
        if options.include_usage:
            yield _event(reply.closing(answers.usage))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(as_api_error(error).body())


def _event(value: dict[str, Any]) -> str:
    # In ASCII: some readers of lines take U+2028 and the like for the end of one.
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


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
