"""The models that the server answers with, by name, and the engine that runs each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rockledge.serve.errors import ApiError
from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity
from rockledge.serve.served_model import ServedModel


@dataclass(frozen=True)
class Running:
    """A model whose engine runs: `front` reaches the engine, `integrity` is whether its file is whole."""

    model: ServedModel
    front: Front
    integrity: Integrity

    @property
    def trouble(self) -> ApiError | None:
        """Why it cannot answer; None while it can."""
        return self.integrity.trouble or self.front.trouble


class Models:
    """All models of a server; the first is that of requests that name none."""

    def __init__(self, running: Sequence[Running]) -> None:
        self._running = list(running)

    def __iter__(self) -> Iterator[ServedModel]:
        return (one.model for one in self._running)

    @property
    def running(self) -> Sequence[Running]:
        """Those whose engines run."""
        return self._running

    def find(self, name: str | None) -> ServedModel:
        """The model of that name or alias.

        Raises:
            ApiError: 404 `model_not_found`.
        """
        if name is None:
            return self._running[0].model
        for model in self:
            if name in model.names:
                return model
        served = " or ".join(f"'{model.name}'" for model in self)
        raise ApiError(
            f"the model '{name}' is not served here; ask for {served}",
            status=404,
            param="model",
            code="model_not_found",
        )

    def start(self) -> None:
        """Called in the event loop once it runs."""
        loop = asyncio.get_running_loop()
        for running in self._running:
            running.front.start()
            running.integrity.start(partial(_tell, loop, running.front))

    def close(self) -> None:
        """Ends what watches their files."""
        for running in self._running:
            running.integrity.close()

    async def acquire(self, model: ServedModel) -> Running:
        """The engine of a model, for one request; `release` it afterwards.

        Raises:
            ApiError: 503 when it cannot answer.
        """
        running = next(one for one in self._running if one.model is model)
        running.integrity.require()
        running.front.require_room()
        return running

    def release(self, running: Running) -> None:
        """The request is over."""


def _tell(loop: asyncio.AbstractEventLoop, front: Front, error: ApiError) -> None:
    damaged = error.code == "artifact_damaged"
    loop.call_soon_threadsafe(front.fail if damaged else front.interrupt, error)
