"""Calls whose answer is made when all of their requests have ended: embeddings and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from rockledge.runtime.request import Output, Request
from rockledge.serve.front import Call, Front
from rockledge.serve.generation import error_of
from rockledge.serve.served_model import ServedModel


class GatheredWork(Protocol):
    """What such a call asks of its model."""

    @property
    def model(self) -> ServedModel:
        """The model that is asked."""

    @property
    def keep_alive_s(self) -> float | None:
        """As `Models.acquire` takes it."""

    @property
    def begun(self) -> Callable[[], None]:
        """Called in the event loop when the model is loaded."""

    def requests(self) -> list[Request]:
        """What the engine is to do, at least one; ids and client are given later."""

    def body(self, outputs: Sequence[Sequence[Output]]) -> bytes:
        """The answer as JSON, of what came of each request; it may take a while.

        Raises:
            ApiError: a request gave nothing.
        """


def open_gathered(front: Front, requests: Sequence[Request], client: str) -> Call:
    """Submits all `requests` of `client`, which run at once. Close the call at the end in any case.

    Raises:
        ApiError: as `Front.open`.
    """
    return front.open([replace(request, client=client) for request in requests])


async def gather(front: Front, call: Call) -> list[list[Output]]:
    """What came of each request, in their order.

    Raises:
        ApiError: what ended the first of the requests that failed.
    """
    found: list[list[Output]] = [[] for _ in call.requests]
    async for place, output in call.outputs():
        if output.failure is not None:
            raise error_of(output.failure, front.draining.is_set())
        found[place].append(output)
    return found
