"""Models without engines, which say when they are loaded and unloaded."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from tests.serve.conftest import scripted_model

from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Running
from rockledge.serve.served_model import ServedModel


def called(name: str, **facts: Any) -> ServedModel:
    return replace(scripted_model(**facts), name=name)


class Shelf:
    """Models without engines: says what was loaded and unloaded, in order ("+a", "-a")."""

    def __init__(self, sizes: dict[str, int], memory: int | None = None, **options: Any) -> None:
        self.now = 0.0
        self.events: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.granted: list[int | None] = []
        self.most = self.loaded = 0
        self.made: dict[str, Running] = {}
        self.room = Room(100)
        self.sizes = sizes
        self.model = {name: called(name) for name in sizes}
        offers = [Offer(self.model[name], self._loader(name), size) for name, size in sizes.items()]
        self.models = Models(offers, room=self.room, memory=memory, clock=lambda: self.now, **options)

    def _loader(self, name: str) -> Callable[[int | None], Running]:
        def load(memory: int | None) -> Running:
            self.granted.append(memory)
            if name in self.gates:
                assert self.gates[name].wait(10)
            if name in self.failures:
                raise self.failures[name]
            self.events.append(f"+{name}")
            self.loaded += self.sizes[name]
            self.most = max(self.most, self.loaded)
            running = Running(self.model[name], Front(self.room), Integrity(), self.sizes[name], close)
            self.made[name] = running
            return running

        def close() -> None:
            self.events.append(f"-{name}")
            self.loaded -= self.sizes[name]

        return load

    async def use(self, name: str, keep_alive_s: float | None = None) -> None:
        """A request that is over at once."""
        self.now += 1
        self.models.release(await self.models.acquire(self.model[name], keep_alive_s))
        await self.rest()

    async def rest(self) -> None:
        """Until nothing is loaded or unloaded any more."""
        end = time.monotonic() + 10
        while any(place.state in ("loading", "unloading") for place in self.models.places):
            assert time.monotonic() < end
            await asyncio.sleep(0.001)

    @property
    def names(self) -> list[str]:
        return [resident.model.name for resident in self.models.resident()]


def run(scenario: Callable[[Shelf], Awaitable[None]], sizes: dict[str, int], **options: Any) -> Shelf:
    """Runs the scenario in an event loop, over models of these sizes."""

    async def inside() -> Shelf:
        shelf = Shelf(sizes, **options)
        shelf.models.start()
        await asyncio.wait_for(scenario(shelf), 20)
        shelf.models.stop()
        return shelf

    return asyncio.run(inside())


ABC = {"a": 1, "b": 1, "c": 1}
