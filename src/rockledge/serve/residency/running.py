"""A model without and with its engine: what the server offers, and what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rockledge.runtime.governor_status import GovernorStatus
from rockledge.serve.errors import ApiError
from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity
from rockledge.serve.served_model import ServedModel


def _nothing() -> None:
    pass


def _no_governor() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Running:
    """A model whose engine runs: `front` reaches the engine, `integrity` is whether its file is whole,
    `bytes` is the memory that it takes. `close` is called once, in any thread: it ends the engine and returns
    when all that it took is free. `npu`: how the NPU stood when it was loaded. `governor`: how
    the governor of the board stands, None without one; any thread may ask."""

    model: ServedModel
    front: Front
    integrity: Integrity
    bytes: int = 0
    close: Callable[[], None] = _nothing
    npu: dict[str, Any] | None = None
    governor: Callable[[], GovernorStatus | None] = _no_governor

    @property
    def trouble(self) -> ApiError | None:
        """Why it cannot answer; None while it can."""
        return self.integrity.trouble or self.front.trouble


@dataclass(frozen=True, eq=False)
class Offer:
    """A model that the server answers with once its engine is loaded.

    `load` is called in a thread of its own, with the bytes that it may take (None: no limit), and raises
    RockledgeError; `bytes` is what it takes at least.
    """

    model: ServedModel
    load: Callable[[int | None], Running]
    bytes: int = 0


@dataclass(frozen=True)
class Resident:
    """A model whose engine is loaded. `expires_at`: when it is unloaded if no further request comes (aware),
    None for never; `bytes`: memory that it takes."""

    model: ServedModel
    expires_at: datetime | None
    bytes: int
