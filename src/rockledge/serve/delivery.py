"""Turns the parts of an answer into an HTTP response: one JSON object, or chunks as they come."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar, runtime_checkable

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from rockledge.errors import ContextError, RockledgeError, UsageError
from rockledge.serve.errors import ApiError
from rockledge.serve.generation import Answers
from rockledge.serve.http.intake import DisconnectedError
from rockledge.serve.options import Options
from rockledge.serve.parts import Part, Usage
from rockledge.serve.style import Style

log = logging.getLogger(__name__)
T = TypeVar("T")


class Reply(Protocol):
    """The shape of one endpoint's answers; made anew for every request."""

    def opening(self) -> list[dict[str, Any]]:
        """Chunks sent before any text."""

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """The streamed form of a part."""

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """Chunks after all text."""

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The answer in one object."""


@runtime_checkable
class FailingReply(Protocol):
    """A reply whose streams end in a way of their own when they fail."""

    def failed(self, error: ApiError) -> list[dict[str, Any]]:
        """The last chunks."""


def reply_head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """The fields that all objects of one answer share."""
    name = f"{prefix}-{secrets.token_hex(12)}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


async def deliver(
    request: Request, answers: Answers, reply: Reply, options: Options, style: Style
) -> Response:
    """Waits for the first part, so that a failure still has its HTTP status, then answers.

    Raises:
        DisconnectedError: the client has left.
        ApiError: the first of the requests that failed.
    """
    parts = answers.parts()
    try:
        if not options.stream:
            found = await unless_disconnected(request, _collect(parts))
            answers.close()
            return JSONResponse(reply.whole(found, answers.usage))
        first = await unless_disconnected(request, _next(parts))
    except BaseException:
        answers.close()
        raise
    chunks = _chunks(first, parts, answers, reply, options, style)
    return _Stream(chunks, answers, style.media_type)


class _Stream(StreamingResponse):
    """Chunks as they come. Work for them ends when sending them ends, for any reason."""

    def __init__(self, chunks: AsyncIterator[str], answers: Answers, media_type: str) -> None:
        # Without the second, nginx holds chunks back until it has some thousand bytes of them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(chunks, media_type=media_type, headers=headers)
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


async def _chunks(
    first: Part | None,
    parts: AsyncIterator[Part],
    answers: Answers,
    reply: Reply,
    options: Options,
    style: Style,
) -> AsyncIterator[str]:
    def usage() -> dict[str, Any]:
        if not options.include_usage:
            return {}
        return {"usage": answers.usage.body() if options.continuous_usage else None}

    try:
        for chunk in reply.opening():
            yield style.chunk({**chunk, **usage()})
        for chunk in reply.chunks(first) if first is not None else ():
            yield style.chunk({**chunk, **usage()})
        async for part in parts:
            for chunk in reply.chunks(part):
                yield style.chunk({**chunk, **usage()})
        for chunk in reply.closing(answers.usage):
            yield style.chunk(chunk)
        if style.end:
            yield style.end
    except Exception as error:
        found = as_api_error(error)
        last = reply.failed(found) if isinstance(reply, FailingReply) else [style.failure(found)]
        for chunk in last:
            yield style.chunk(chunk)


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives.

    Raises:
        DisconnectedError: the client has left; the work is cancelled.
    """

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
