"""What becomes of one model while the server runs: loaded, at work, idle, unloaded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from rockledge.serve.errors import ApiError
from rockledge.serve.residency.running import Offer, Running

State = Literal["unloaded", "loading", "loaded", "unloading"]


@dataclass(eq=False)
class Waiting:
    """A request for a model that is not there yet; `granted` gives it the engine."""

    granted: asyncio.Future[Running]
    tokens: int
    prompts: int = 1


@dataclass(eq=False)
class Place:
    """`users`: requests at work; `keep_alive_s`: how long it stays after the last of them, below 0 for ever;
    `idle_since` by the clock of `Models`; `running`: its engine, also while that comes or goes; `failure`:
    why the last attempt to load it failed; `loads`: how often it was loaded."""

    offer: Offer
    keep_alive_s: float
    state: State = "unloaded"
    running: Running | None = None
    users: int = 0
    idle_since: float = 0.0
    failure: ApiError | None = None
    loads: int = 0
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its model."""
        return self.offer.model.name

    @property
    def loaded(self) -> bool:
        """Whether its engine runs."""
        return self.state == "loaded"

    @property
    def engine(self) -> Running | None:
        """Its engine if that is loaded, not one that comes or goes."""
        return self.running if self.loaded else None

    @property
    def bytes(self) -> int:
        """Memory that it takes, or is about to."""
        if self.state == "unloaded":
            return 0
        return self.offer.bytes if self.running is None else max(self.running.bytes, self.offer.bytes)

    @property
    def requests(self) -> int:
        """Requests for it that run or wait."""
        return self.users + len(self.waiting)

    @property
    def trouble(self) -> ApiError | None:
        """Why it cannot answer now; None while it can, or would be loaded."""
        return self.failure if self.engine is None else self.engine.trouble

    @property
    def broken(self) -> bool:
        """Whether its engine has to be loaded again before it can answer."""
        engine = self.engine
        return engine is not None and (
            engine.front.failure is not None or engine.integrity.failure is not None
        )

    def left_s(self, now: float) -> float | None:
        """Seconds until it is unloaded if no request comes, None for never. At work: as if that ended now."""
        if self.keep_alive_s < 0:
            return None
        return self.keep_alive_s - (0 if self.users else now - self.idle_since)
