"""One request at a time: requests wait in line, one thread runs them, results flow to asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from rockledge.serve.errors import ApiError

T = TypeVar("T")
Cancelled = Callable[[], bool]


class _End:
    pass


class Ticket(Generic[T]):
    """The place of one request in the line, and the stream of its results. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[T | Exception | _End] = asyncio.Queue()
        self._cancel = threading.Event()

    def cancel(self) -> None:
        """Takes the request out of the line, or stops its work at the next token."""
        self._cancel.set()

    def cancelled(self) -> bool:
        """Whether the results are no longer wanted."""
        return self._cancel.is_set()

    def _post(self, result: T | Exception | _End) -> None:
        try:
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)
        except RuntimeError:  # the event loop has closed: there is no reader any more
            self.cancel()

    async def results(self) -> AsyncIterator[T]:
        """The results in order; raises what the work raised. Leaving early cancels the work."""
        try:
            while True:
                result = await self._results.get()
                if isinstance(result, _End):
                    return
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            self.cancel()


class Line:
    """A first-in, first-out line of at most `limit` requests (the one at work included) over one thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: list[Ticket[object]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rockledge-engine")

    def __len__(self) -> int:
        """Requests in the line that somebody still waits for."""
        with self._lock:
            return sum(not ticket.cancelled() for ticket in self._waiting)

    def submit(self, work: Callable[[Cancelled], Iterator[T]]) -> Ticket[T]:
        """Queues `work`; it runs in the line's thread and learns through its argument when to give up.

        Raises:
            ApiError: 503 when the line is full.
        """
        if len(self) >= self._limit:
            raise ApiError(
                f"{self._limit} requests are already waiting; try again in a moment",
                status=503,
                code="server_busy",
            )
        ticket: Ticket[T] = Ticket()
        with self._lock:
            self._waiting.append(ticket)  # type: ignore[arg-type]
        self._thread.submit(self._serve, ticket, work)
        return ticket

    def _serve(self, ticket: Ticket[T], work: Callable[[Cancelled], Iterator[T]]) -> None:
        try:
            if not ticket.cancelled():
                for result in work(ticket.cancelled):
                    ticket._post(result)
                    if ticket.cancelled():
                        break
        except Exception as error:
            ticket._post(error)
        finally:
            with self._lock:
                self._waiting.remove(ticket)  # type: ignore[arg-type]
            ticket._post(_End())

    def close(self) -> None:
        """Cancels everything in the line and waits for the thread."""
        with self._lock:
            for ticket in self._waiting:
                ticket.cancel()
        self._thread.shutdown(wait=True)
