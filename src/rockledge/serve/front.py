"""The event loop's side of the engine: requests out as messages, what comes back to the call that waits."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from rockledge.runtime.exchange import (
    AskStats,
    Cancel,
    Drain,
    Ended,
    Failed,
    FromEngine,
    Stats,
    Stop,
    Submit,
    ToEngine,
)
from rockledge.runtime.request import EngineStats, Output, Request
from rockledge.serve.errors import ApiError, shutting_down
from rockledge.serve.residency.room import Room
from rockledge.serve.safety.keys import Keys

STATS_SECONDS = 1.0
"""Age at which the engine is asked again how it stands, and how long an answer is waited for."""
REFRESH_SECONDS = 0.02
"""How long health waits for that: probes come often, and want to know that somebody answers."""


class Call:
    """The requests of one HTTP call: submitted together, read together, cancelled together."""

    def __init__(self, front: Front, requests: Sequence[Request]) -> None:
        self.requests = requests
        self._front = front
        self._outputs: asyncio.Queue[Output | ApiError] = asyncio.Queue()
        self._open = {request.id: number for number, request in enumerate(requests)}

    @property
    def tokens(self) -> int:
        """Tokens of all its prompts."""
        return sum(len(request.prompt) for request in self.requests)

    @property
    def prompts(self) -> int:
        """How many requests it has."""
        return len(self.requests)

    async def outputs(self) -> AsyncIterator[tuple[int, Output]]:
        """What comes of the requests, each with its place among them, until all have ended.

        Raises:
            ApiError: 503 when the engine ends before they do.
        """
        try:
            while self._open:
                output = await self._outputs.get()
                if isinstance(output, ApiError):
                    raise output
                number = self._open[output.request]
                if output.last:
                    del self._open[output.request]
                yield number, output
                await asyncio.sleep(0)  # many outputs at once do not keep the event loop from others
        finally:
            self.close()

    def close(self) -> None:
        """Takes what has not ended out of the engine. Closing twice is allowed."""
        self._front.forget(self, list(self._open))
        self._open.clear()

    def put(self, output: Output | ApiError) -> None:
        """Of the front: something for this call."""
        self._outputs.put_nowait(output)


class Front:
    """All calls in the server, over one engine that is reached by messages only.

    Everything but `deliver` belongs to the event loop's thread.
    """

    def __init__(self, room: Room, keys: Keys | None = None) -> None:
        """As many calls as the server has `room` for; what `keys` allow, if there are some."""
        self._keys = keys
        self._room = room
        self.failure: ApiError | None = None
        """Why the engine can no longer answer; None while it can."""
        self.stats = EngineStats()
        """How the engine stood when it was last asked."""
        self.draining = asyncio.Event()
        """Set when the server has begun to end."""
        self._send: Callable[[ToEngine], None] = lambda _: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: deque[FromEngine] = deque()
        self._woken = False
        self._calls: set[Call] = set()
        self._by_request: dict[str, Call] = {}
        self._names = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count())
        self._tags = itertools.count()
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._asked_at = 0.0

    def connect(self, send: Callable[[ToEngine], None]) -> None:
        """`send` hands a message to the engine's side, as `Service.send` does."""
        self._send = send

    def start(self) -> None:
        """Called in the event loop once it runs."""
        self._loop = asyncio.get_running_loop()
        self._ask()

    def deliver(self, message: FromEngine) -> None:
        """Takes a message of the engine's side, in any thread."""
        if self._loop is None:
            self._receive(message)  # before the loop runs nobody waits for anything
            return
        self._arrived.append(message)
        if self._woken:
            return
        self._woken = True  # once for all that a step gives: waking the loop costs more than the rest
        try:
            self._loop.call_soon_threadsafe(self._receive_all)
        except RuntimeError:  # the loop has closed: there is no reader any more
            return

    def _receive_all(self) -> None:
        self._woken = False  # before looking, so that nothing that comes now is left lying
        while self._arrived:
            self._receive(self._arrived.popleft())

    def __len__(self) -> int:
        """Calls in the server that somebody waits for."""
        return len(self._calls)

    @property
    def trouble(self) -> ApiError | None:
        """Why no call is taken, however few there are; None while they are."""
        return shutting_down() if self.draining.is_set() else self.failure

    def require_room(self) -> None:
        """Refuses a call that there is no place for, before anything is done for it.

        Raises:
            ApiError: 503.
        """
        if self.trouble is not None:
            raise self.trouble
        self._room.require()

    def open(self, requests: Sequence[Request]) -> Call:
        """Submits the requests (their ids are given here) and says where their outputs come.

        Raises:
            ApiError: 503 when the server is full, is ending or has failed; 429 where a key's limits say so.
        """
        self.require_room()
        call = Call(self, [replace(request, id=next(self._names)) for request in requests])
        self._room.require_prompts(call.tokens, call.prompts)
        if self._keys is not None:
            call.requests = self._keys.admit(call.requests)
        self._calls.add(call)
        self._room.enter(call)
        for request in call.requests:
            self._by_request[request.id] = call
            self._send(Submit(request))
        return call

    def forget(self, call: Call, open_requests: Sequence[str]) -> None:
        """Of the call: it is over. `open_requests` of it have not ended."""
        self._calls.discard(call)
        self._room.leave(call)
        for request in call.requests:
            self._by_request.pop(request.id, None)
        for name in open_requests:
            self._send(Cancel(name))

    def fail(self, error: ApiError) -> None:
        """The engine can no longer answer, or must not: every open call ends with `error`, and so do new
        ones. The engine takes no further step."""
        if self.failure is None:
            self.failure = error
            self.interrupt(error)
            self._send(Stop())

    def interrupt(self, error: ApiError) -> None:
        """Ends every open call with `error`; new ones are taken."""
        for call in self._calls:
            call.put(error)

    def drain(self, grace_s: float) -> None:
        """The server ends: calls that wait end at once, running ones have `grace_s` seconds."""
        self.draining.set()
        self._send(Drain(grace_s))

    async def refresh(self) -> None:
        """Asks how the engine stands if that is long ago. An engine between two steps answers at once; one
        in a step is not waited for, and `stats` is renewed when its answer comes."""
        if time.monotonic() - self._asked_at > STATS_SECONDS:
            await asyncio.wait({self._ask()}, timeout=REFRESH_SECONDS)

    async def fresh_stats(self) -> EngineStats:
        """How the engine stands now; how it stood last if it does not say so in time."""
        done, _ = await asyncio.wait({self._ask()}, timeout=STATS_SECONDS)
        del done
        return self.stats

    def _ask(self) -> asyncio.Future[None]:
        self._asked_at = time.monotonic()
        tag = next(self._tags)
        answer = self._asked[tag] = asyncio.get_running_loop().create_future()
        self._send(AskStats(tag))
        return answer

    def _receive(self, message: FromEngine) -> None:
        if isinstance(message, Output):
            call = self._by_request.get(message.request)
            if call is not None:
                call.put(message)
                if self._keys is not None and message.piece is not None:
                    self._keys.charge(call.requests[0].client, len(message.piece.ids))
        elif isinstance(message, Stats):
            self.stats = message.stats
            for tag in [tag for tag in self._asked if tag <= message.tag]:
                if not self._asked[tag].done():
                    self._asked[tag].set_result(None)
                del self._asked[tag]
        elif isinstance(message, Failed):
            self.fail(ApiError(message.message, status=503, code="engine_failed"))
        else:
            assert isinstance(message, Ended)
            if not self.draining.is_set():
                self.fail(
                    ApiError("the engine has ended; restart the server", status=503, code="engine_failed")
                )
            self.interrupt(shutting_down())
