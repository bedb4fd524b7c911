"""How an artifact was made, for report.md: what one must know to make it again or to wonder about it."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass

from rockledge import __version__
from rockledge.units import show_duration, show_size


@dataclass(frozen=True)
class Provenance:
    """`command` is None for a call from Python; `calibration` says which text with its checksum, or why there
    is none, and `tokens` how many of it (None without). `seconds` end before the artifact is complete.
    `peak_memory_bytes` is what the process has had resident. `steps`: those of the recipe, by name."""

    command: str | None
    seconds: float
    peak_memory_bytes: int
    calibration: str
    tokens: int | None
    seed: int
    steps: Mapping[str, object]

    def lines(self) -> list[str]:
        """The part of report.md."""
        rows = {
            "command": "a call from Python" if self.command is None else f"`{self.command}`",
            "version": __version__,
            "time": show_duration(self.seconds),
            "peak memory": show_size(self.peak_memory_bytes),
            "calibration text": self.calibration,
            **({} if self.tokens is None else {"calibration tokens": str(self.tokens)}),
            "seed": str(self.seed),
            "steps": ", ".join(f"{name} {_shown(value)}" for name, value in self.steps.items()),
        }
        return ["## How it was made", "", *(f"- {name}: {value}" for name, value in rows.items())]


def peak_memory() -> int:
    """The most bytes this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
