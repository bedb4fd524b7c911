"""What is asked of a target, and what it says it has done: plain data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rockledge.export.plain import PlainModel

Progress = Callable[[str, int, int], None]
"""Told (what is done, how many of it, of how many)."""

TOKENS = 1024
"""Tokens of the built-in text on which the cost of rounding again is measured, where nobody says."""


@dataclass(frozen=True)
class ExportRequest:
    """`kind`: the type of numbers, one of the target's, "" for its default. `tokens`: of the built-in text to
    measure on, 0 for no measurement. `toolkit`: the Python of an environment that has the vendor's toolkit.
    `blocks`: for the toolkit, whole layers in place of single linears."""

    kind: str = ""
    tokens: int = TOKENS
    toolkit: str | None = None
    blocks: bool = False
    progress: Progress = lambda what, done, total: None
    note: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class Written:
    """What stands in the export's directory. `report` becomes export.json; `lines` are for people, `notes`
    what they should know besides, a sentence each."""

    report: Mapping[str, Any]
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Target:
    """A format to export to. `kinds` are the types of its numbers, the default first. `write` fills a hidden
    directory with the model; `out` is the place that errors name."""

    name: str
    about: str
    kinds: tuple[str, ...]
    write: Callable[[PlainModel, Path, Path, ExportRequest], Written]
