"""What a front end and a running engine tell each other: plain, picklable data; nothing else is shared."""

from dataclasses import dataclass

from rockledge.board.levers import Setting
from rockledge.runtime.request import EngineStats, Output, Request


@dataclass(frozen=True)
class Submit:
    """A new request. Its id must not be in use."""

    request: Request


@dataclass(frozen=True)
class Cancel:
    """Nobody wants the rest of a request, and nothing more is said of it. One that has ended stays so."""

    request: str


@dataclass(frozen=True)
class AskStats:
    """How does the engine stand? `Stats` with the same tag answers."""

    tag: int


@dataclass(frozen=True)
class Adjust:
    """From the next step on this setting holds; no result changes."""

    setting: Setting


@dataclass(frozen=True)
class Drain:
    """The end is near: requests that wait end at once, running ones may go on for `grace_s` seconds, and new
    ones fail. `Ended` follows the last of them."""

    grace_s: float


@dataclass(frozen=True)
class Stop:
    """End now; what is open fails."""


@dataclass(frozen=True)
class Stats:
    """The answer to `AskStats`."""

    tag: int
    stats: EngineStats


@dataclass(frozen=True)
class Failed:
    """The engine cannot go on. Every open request has failed, and new ones will."""

    message: str


@dataclass(frozen=True)
class Ended:
    """Nothing follows: the engine runs no longer."""


ToEngine = Submit | Cancel | AskStats | Adjust | Drain | Stop
FromEngine = Output | Stats | Failed | Ended
