"""The models of a server by name, and which of them are loaded.

A model is loaded when a request asks for it, and unloaded when none has for a while or another needs its
memory: the one that has been idle longest first. One with requests at work stays until they are over. If a
model has to wait for such a one, that takes no further requests meanwhile, so that everybody gets a turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from rockledge.errors import RockledgeError
from rockledge.serve.errors import ApiError, server_busy, shutting_down
from rockledge.serve.front import Front
from rockledge.serve.limits import Limits
from rockledge.serve.residency.allowance import allowance
from rockledge.serve.residency.daemon_threads import DaemonThreads
from rockledge.serve.residency.eviction import to_unload
from rockledge.serve.residency.place import Place, State, Waiting
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Resident, Running
from rockledge.serve.served_model import ServedModel

FOR_EVER = -1.0
LATEST = ":latest"
MOST_KEEP_ALIVE_S = 100 * 365 * 86400.0
"""Whoever asks for more means for ever."""

log = logging.getLogger(__name__)


class Models:
    """All models of a server; the first is that of requests that name none. All of it but `close` belongs to
    the event loop's thread."""

    def __init__(
        self,
        offers: Sequence[Offer],
        running: Iterable[Running] = (),
        *,
        limits: Limits | None = None,
        room: Room | None = None,
        memory: int | None = None,
        keep_alive_s: float = FOR_EVER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`running`: the engines that are loaded already. `room`: how many calls may be in the server. Models
        that are loaded take at most `memory` bytes together (None: no limit), and stay for `keep_alive_s`
        after their last request (below 0: for ever) unless a request says otherwise; `clock` counts those
        seconds."""
        self._limits = Limits() if limits is None else limits
        self._room = Room(self._limits.parallel + self._limits.waiting) if room is None else room
        self._memory = memory
        self._keep_alive_s = _bounded(keep_alive_s)
        self._clock = clock
        self._places = {id(offer.model): Place(offer, self._keep_alive_s) for offer in offers}
        self._first = next(iter(self._places.values()))
        self._turns: list[Place] = []  # that requests wait for, the first to be loaded first
        self._leaving: set[Place] = set()  # to be unloaded for those once their requests are over
        self._work: set[asyncio.Task[None]] = set()
        self._threads = DaemonThreads()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = self._closed = False
        for engine in running:
            place = self._places[id(engine.model)]
            place.state, place.running, place.loads = "loaded", engine, 1

    def __iter__(self) -> Iterator[ServedModel]:
        return (place.offer.model for place in self._places.values())

    def __len__(self) -> int:
        return len(self._places)

    # What there is

    @property
    def running(self) -> Sequence[Running]:
        """Those whose engines are loaded."""
        return [place.engine for place in self._places.values() if place.engine is not None]

    @property
    def places(self) -> Sequence[Place]:
        """All, and how they stand. Read them only."""
        return list(self._places.values())

    @property
    def trouble(self) -> ApiError | None:
        """Why requests that name no model cannot be answered; None while they can."""
        return shutting_down() if self._draining else self._first.trouble

    @property
    def lost(self) -> ApiError | None:
        """Why only a restart helps; None while it would not. Of several models each may be loaded again."""
        engine = self._first.engine
        failure = None if engine is None or len(self) > 1 else engine.front.failure
        return failure if failure is not None and failure.code == "engine_failed" else None

    def find(self, name: str | None) -> ServedModel:
        """The model of that name or alias. NAME:latest is taken too: some clients list models by Ollama's
        API and then ask OpenAI's.

        Raises:
            ApiError: 404 `model_not_found`.
        """
        if name is None:
            return self._first.offer.model
        for wanted in (name, name.removesuffix(LATEST)):
            for model in self:
                if wanted in model.names:
                    return model
        served = " or ".join(f"'{model.name}'" for model in self)
        raise ApiError(
            f"the model '{name}' is not served here; ask for {served}",
            status=404,
            param="model",
            code="model_not_found",
        )

    def resident(self) -> list[Resident]:
        """Those whose engines are loaded, and until when."""
        now, today = self._clock(), datetime.now(timezone.utc)
        found = []
        for place in self._places.values():
            if place.loaded:
                left = place.left_s(now)
                ends = None if left is None else today + timedelta(seconds=max(left, 0))
                found.append(Resident(place.offer.model, ends, place.bytes))
        return found

    # Requests

    def require_room(self) -> None:
        """Refuses a request before its body is read when no model could answer it.

        Raises:
            ApiError: 503.
        """
        trouble = self.trouble if len(self) == 1 and self._first.loaded else None
        if self._draining:
            trouble = shutting_down()
        if trouble is not None:
            raise trouble
        self._room.require()

    async def acquire(
        self,
        model: ServedModel,
        keep_alive_s: float | None = None,
        *,
        tokens: int = 0,
        prompts: int = 1,
        timeout_s: float | None = None,
    ) -> Running:
        """The engine of a model, for one request; `release` it afterwards. It is loaded first where it is
        not, which may have to wait until another can be unloaded.

        `keep_alive_s`: how long it stays after its last request, None for what the server does, below 0 for
        ever, 0 for no longer than that. `prompts` of so many `tokens` may have to wait here, for `timeout_s`
        at most.

        Raises:
            ApiError: 503 when it cannot answer, cannot be loaded, or when that takes too long; 504 when it
                takes longer than `timeout_s`.
        """
        self.require_room()
        place = self._places[id(model)]
        self._keep(place, keep_alive_s)
        if place.loaded and place.trouble is not None:
            trouble = place.trouble
            self._settle()  # it may be one that is to be loaded again
            if place.loaded:
                raise trouble
        if place.loaded and place not in self._leaving:
            return self._enter(place)
        return await self._wait(place, tokens, prompts, timeout_s)

    def release(self, running: Running) -> None:
        """The request is over."""
        place = self._places[id(running.model)]
        place.users -= 1
        if not place.users:  # the order of busy ones stays, or they would be spared in turn
            place.idle_since = self._clock()
        self._settle()

    async def unload(self, model: ServedModel) -> None:
        """Unloads a model, once its requests are over; returns at once where there are some."""
        place = self._places[id(model)]
        place.keep_alive_s = 0.0
        self._settle()
        while place.state == "unloading":
            await asyncio.wait(self._work, return_when=asyncio.FIRST_COMPLETED)

    def _keep(self, place: Place, keep_alive_s: float | None) -> None:
        place.keep_alive_s = self._keep_alive_s if keep_alive_s is None else _bounded(keep_alive_s)

    def _enter(self, place: Place) -> Running:
        assert place.running is not None
        place.users += 1
        return place.running

    async def _wait(self, place: Place, tokens: int, prompts: int, timeout_s: float | None) -> Running:
        self._room.require_prompts(tokens, prompts)
        waiting = Waiting(asyncio.get_running_loop().create_future(), tokens, prompts)
        place.waiting.append(waiting)
        self._room.enter(waiting)
        if place not in self._turns:
            self._turns.append(place)
        self._settle()
        try:
            most_s = self._limits.load_wait_s
            await asyncio.wait({waiting.granted}, timeout=min(most_s, timeout_s or most_s))
            if not waiting.granted.done():
                if timeout_s is not None and timeout_s < most_s:
                    raise ApiError(
                        f"the model '{place.name}' was not loaded within {timeout_s:g} s, the request's "
                        "timeout",
                        status=504,
                        code="timeout",
                    )
                why = "it takes long" if place.state == "loading" else "others use the memory"
                raise server_busy(f"the model '{place.name}' is not loaded yet, {why}; try again in a moment")
        except BaseException:
            if waiting.granted.done() and not waiting.granted.cancelled():
                if waiting.granted.exception() is None:  # given, and nobody there to take it
                    self.release(waiting.granted.result())
            else:
                self._give_up(place, waiting)
            raise
        finally:
            self._room.leave(waiting)
        return waiting.granted.result()

    def _give_up(self, place: Place, waiting: Waiting) -> None:
        place.waiting.remove(waiting)
        if not place.waiting:
            self._turns.remove(place)
        self._settle()

    # Loading and unloading

    def start(self) -> None:
        """Called in the event loop once it runs."""
        now = self._clock()
        for place in self._places.values():
            place.idle_since = now
            if place.running is not None:
                self._begin(place.running)
        self._settle()

    def _begin(self, running: Running) -> None:
        running.front.start()
        loop, front = asyncio.get_running_loop(), running.front

        def tell(error: ApiError) -> None:  # kept by `running`, which it must not keep
            loop.call_soon_threadsafe(self._told, front, error)

        running.integrity.start(tell)

    def _told(self, front: Front, error: ApiError) -> None:
        """Something has happened to the file of a model."""
        if error.code == "artifact_damaged":
            front.fail(error)
        else:
            front.interrupt(error)
        self._settle()

    def unload_expired(self) -> None:
        """Unloads what no request has asked for as long as it was to stay; called when that is over."""
        self._settle()

    def _settle(self) -> None:
        """Does all that can be done now: engines for those who wait, memory for the first of them, an end for
        what nobody keeps."""
        if self._draining:
            return
        self._leaving.clear()
        # One at a time, so that it is known what is left; and nobody takes memory that another waits for.
        waits = any(place.state == "loading" for place in self._places.values())
        for place in list(self._turns):
            if place.loaded and place not in self._leaving and not self._to_be_renewed(place):
                self._grant(place)
            elif waits or place.state != "unloaded" or not self._make_room(place):
                waits = True
            else:
                offers = [other.offer for other in self._places.values()]
                taken = sum(other.bytes for other in self._places.values())
                allowed = allowance(place.offer, offers, self._memory, taken)
                self._begin_work(place, "loading", self._load(place, allowed))
                waits = True
        now = self._clock()
        ends = []
        for place in self._places.values():
            if not place.loaded or place.users:
                continue
            left = place.left_s(now)
            if place in self._leaving or self._to_be_renewed(place) or (left is not None and left <= 0):
                self._begin_work(place, "unloading", self._unload(place))
            elif left is not None:
                ends.append(left)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(min(ends), self.unload_expired) if ends else None

    def _to_be_renewed(self, place: Place) -> bool:
        """Whether its engine is broken and may be loaded again. Where there is only this one, it stays as it
        is: whoever supervises the server sees it and decides."""
        return len(self) > 1 and place.broken

    def _grant(self, place: Place) -> None:
        self._turns.remove(place)
        for waiting in place.waiting:
            if not waiting.granted.done():
                waiting.granted.set_result(self._enter(place))
        place.waiting.clear()

    def _make_room(self, place: Place) -> bool:
        """Whether there is memory for it; if not, what is to be unloaded for it is found."""
        if self._memory is None:
            return True
        taken = sum(other.bytes for other in self._places.values())
        missing = taken + place.offer.bytes - self._memory
        if missing <= 0:
            return True
        missing -= sum(other.bytes for other in self._places.values() if other.state == "unloading")
        self._leaving.update(to_unload((other for other in self._places.values() if other.loaded), missing))
        return False

    def _begin_work(self, place: Place, state: State, work: Coroutine[Any, Any, None]) -> None:
        place.state = state
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _load(self, place: Place, memory: int | None) -> None:
        def load() -> Running:
            place.running = place.offer.load(memory)
            return place.running

        try:
            running = await self._threads.run(load, f"rockledge loads {place.name}")
        except RockledgeError as error:
            self._failed(place, str(error))
        except Exception as error:
            log.error("the model '%s' cannot be loaded", place.name, exc_info=error)
            self._failed(place, f"the model '{place.name}' cannot be loaded; the server's log says why")
        else:
            place.state, place.failure, place.idle_since = "loaded", None, self._clock()
            place.loads += 1
            if not self._draining:
                self._begin(running)
        self._settle()

    def _failed(self, place: Place, message: str) -> None:
        """Says it to all who wait; the next request tries again."""
        log.error("%s", message)
        place.state = "unloaded"
        place.failure = ApiError(message, status=503, code="model_load_failed")
        self._refuse(place, place.failure)

    def _refuse(self, place: Place, error: ApiError) -> None:
        if place in self._turns:
            self._turns.remove(place)
        for waiting in place.waiting:
            if not waiting.granted.done():
                waiting.granted.set_exception(error)
        place.waiting.clear()

    async def _unload(self, place: Place) -> None:
        running = place.running
        assert running is not None

        def unload() -> None:
            try:
                running.close()
            finally:
                place.running = None

        try:
            await self._threads.run(unload, f"rockledge unloads {place.name}")
        except Exception as error:
            log.error("the model '%s' did not end as it should", place.name, exc_info=error)
        place.state = "unloaded"
        log.info("the model '%s' is unloaded", place.name)
        self._settle()

    # The end

    def drain(self, grace_s: float) -> None:
        """The server ends: requests that wait end at once, running ones have `grace_s` seconds."""
        self._draining = True
        for place in self._places.values():
            self._refuse(place, shutting_down())
        for running in self.running:
            running.front.drain(grace_s)

    def stop(self) -> None:
        """Called in the event loop before it ends: nothing is begun any more."""
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
        for running in self.running:
            running.integrity.close()

    def close(self) -> None:
        """Ends all engines, once the event loop has ended. A load at work has the grace of answers. Closing
        twice is allowed, and waits once."""
        if self._closed:
            return
        self._closed = True
        ended = self._threads.join(self._limits.grace_s)
        for place in self._places.values():
            if place.running is not None and (ended or place.state != "unloading"):
                place.running.close()
                place.running = None


def _bounded(keep_alive_s: float) -> float:
    return FOR_EVER if keep_alive_s > MOST_KEEP_ALIVE_S else keep_alive_s
