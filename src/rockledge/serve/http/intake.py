"""How requests come in: bodies read in pieces within bounds, and their work done outside the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import Request

from rockledge.serve.errors import ApiError, server_busy
from rockledge.serve.http.json_body import MOST_BRACKETS, parse_json
from rockledge.serve.limits import Limits

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGE = 64 << 10
"""Bytes from which on a body is large. Few large ones are held at a time; small ones do not wait for them."""

LARGE_AT_ONCE = 4
SMALL_WORKERS = 2


class DisconnectedError(Exception):
    """The client has disconnected."""


class Intake:
    """Reads bodies and turns them into requests, in threads of its own: while the tokenizers package works,
    others go on."""

    def __init__(self, limits: Limits, context: int) -> None:
        """`context`: as many brackets a body may have at least."""
        self._limits = limits
        self._brackets = max(MOST_BRACKETS, context)
        self._small = ThreadPoolExecutor(SMALL_WORKERS, "rockledge-intake")
        self._large = ThreadPoolExecutor(1, "rockledge-large-intake")
        self._places = asyncio.Semaphore(LARGE_AT_ONCE)

    def close(self) -> None:
        """Waits for the threads."""
        self._small.shutdown(wait=True, cancel_futures=True)
        self._large.shutdown(wait=True, cancel_futures=True)

    async def read(self, request: Request, make: Callable[[object], T]) -> T:
        """What `make` makes of the JSON value of the request's body, in a thread.

        Raises:
            ApiError: 400, 408, 413 or 415 for a body that is not taken; and what `make` raises.
            DisconnectedError: the client has left meanwhile.
        """
        async with self._body(request) as body:
            loop, brackets = asyncio.get_running_loop(), self._brackets
            threads = self._small if len(body) <= LARGE else self._large
            return await loop.run_in_executor(threads, lambda: make(parse_json(body, brackets)))

    async def compute(self, work: Callable[[], T]) -> T:
        """What `work` gives, in a thread of those for large bodies."""
        return await asyncio.get_running_loop().run_in_executor(self._large, work)

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytearray]:
        """The body, held together with a place among the large ones if it is one."""
        self._check_headers(request)
        limits, body, placed = self._limits, bytearray(), False
        end = time.monotonic() + limits.body_s
        try:
            more = True
            while more:
                message = await _within(request.receive(), min(limits.piece_s, end - time.monotonic()))
                if message["type"] == "http.disconnect":
                    log.info("a client left before all of its request had come")
                    raise DisconnectedError
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
                if len(body) > LARGE and not placed:
                    await self._place(end)
                    placed = True
            yield body
        finally:
            if placed:
                self._places.release()

    async def _place(self, end: float) -> None:
        try:
            await asyncio.wait_for(self._places.acquire(), end - time.monotonic())
        except asyncio.TimeoutError:
            raise server_busy("other large requests are being read; try again in a moment") from None

    def _check_headers(self, request: Request) -> None:
        """Refuses what the headers alone forbid, before any of the body is read."""
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise ApiError(
                f"the request body has the content encoding {encoding[:40]!r}, expected none; "
                "send it as it is",
                status=415,
                headers={"Accept-Encoding": "identity"},
            )
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._limits.body_bytes:
            raise _too_large(self._limits.body_bytes)


async def _within(work: Awaitable[T], seconds: float) -> T:
    try:
        return await asyncio.wait_for(work, max(seconds, 0))
    except asyncio.TimeoutError:
        raise ApiError(
            "the request body did not come in time; send it at once",
            status=408,
            headers={"Connection": "close"},
        ) from None


def _too_large(limit: int) -> ApiError:
    size = f"{limit / (1 << 20):g} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    return ApiError(
        f"the request body is larger than {size}; shorten it or restart the server with a larger --max-body",
        status=413,
    )
