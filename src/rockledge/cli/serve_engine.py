"""One model of a server: its engine with all that belongs to it, loaded and ended whenever that is asked."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.artifact import open_artifact
from rockledge.artifact.reader import Artifact
from rockledge.artifact.watch import ArtifactWatch
from rockledge.board.governor import TARGET_CELSIUS
from rockledge.errors import ArtifactError
from rockledge.runtime.bus_error import explained_bus_errors
from rockledge.runtime.engine import Engine
from rockledge.runtime.exchange import Stop
from rockledge.runtime.governing import make_governor
from rockledge.runtime.governor_status import GovernorStatus
from rockledge.runtime.service import Service
from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity
from rockledge.serve.residency.running import Running

if TYPE_CHECKING:
    from rockledge.serve.residency.room import Room
    from rockledge.serve.safety.keys import Keys
    from rockledge.serve.served_model import ServedModel

log = logging.getLogger(__name__)


@dataclass
class ServedEngine:
    """What it takes to load `model` from the artifact at `path`: `options` are those of `Engine.load`; `room`
    and `keys` bound the calls of all models together; `governor` and `target` as for `make_governor`."""

    path: Path
    model: ServedModel
    options: Mapping[str, Any]
    room: Room
    keys: Keys | None
    governor: str = "off"
    target: float = TARGET_CELSIUS
    _suspicious: bool = field(default=False, init=False)  # damage was found when it was last loaded

    def load(self, memory: int | None) -> Running:
        """Its engine, which takes at most `memory` bytes (None: no limit).

        Raises:
            RockledgeError: the artifact is damaged, gone, or another one since the server started; or there
                is too little memory.
        """
        artifact = self._unchanged(open_artifact(self.path))
        if self._suspicious:
            with nullcontext() if self.options["memory_budget"] is None else artifact.unmapped_file() as file:
                artifact.verify(file=file)
            self._suspicious = False
        del artifact
        with ExitStack() as undone:
            engine = Engine.load(self.path, memory=memory, **self.options)
            undone.callback(engine.close)
            self._unchanged(engine.artifact)
            watch = undone.enter_context(ArtifactWatch(engine.artifact))
            undone.enter_context(explained_bus_errors(engine.artifact))
            front = Front(self.room, self.keys)
            integrity = Integrity(engine.verify, watch)
            size, npu = engine.footprint.bytes, engine.npu.body()
            services: list[Service] = []
            governor = make_governor(
                self.governor,
                engine,
                self.options["parallel"],
                self.target,
                send=lambda message: services[0].send(message),
                stats=lambda: front.stats,
            )
            closing = undone.pop_all()
        services.append(Service(engine, front.deliver))
        front.connect(services[0].send)
        if governor is not None:
            governor.start()
        del engine, watch
        _freeze()

        def close() -> None:
            if governor is not None:
                governor.close()
            service = services.pop()
            service.send(Stop())
            service.join()
            front.connect(lambda _: None)
            del service  # the last to know the engine
            integrity.close()
            self._suspicious = integrity.failure is not None
            closing.close()
            _free()

        def status() -> GovernorStatus | None:
            return None if governor is None else governor.status

        return Running(self.model, front, integrity, size, close, npu, status)

    def _unchanged(self, artifact: Artifact) -> Artifact:
        if artifact.digest != self.model.details.digest:
            raise ArtifactError(
                f"{self.path} is not the artifact that it was when the server started; restart the server to "
                "serve the new one"
            )
        return artifact


def _freeze() -> None:
    """Takes what is loaded out of the collector's sight: looking through it again and again would stop all
    threads for 50 ms each time."""
    gc.collect()
    gc.freeze()


def _free() -> None:
    """Gives back to the system what is no longer loaded."""
    gc.unfreeze()
    _freeze()
    with suppress(AttributeError):  # glibc's, and not of other C libraries
        ctypes.CDLL(None).malloc_trim(0)
