"""Output of commands: answers to stdout, notes and progress to stderr, `--json` one object on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rockledge.cli.shown import safe
from rockledge.cli.time_left import TimeLeft
from rockledge.units import show_duration

LOG_SECONDS = 30.0
"""Seconds between lines about a stage that goes on, where there is no terminal to draw bars on."""

Advance = Callable[[str, int, int], None]  # stage, steps done, steps in all


class Terminal:
    """One run of a command as its user sees it."""

    def __init__(self, as_json: bool, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        if isinstance(sys.stdout, TextIOWrapper):  # a model may write what the locale cannot encode
            sys.stdout.reconfigure(errors="replace")
        self._stdout: TextIO = sys.stdout
        self._console = Console(stderr=True, highlight=False)

    def print(self, text: str = "", end: str = "\n") -> None:
        """Part of the answer, for people: stdout, or nothing with `--json`. What a model or a file says
        reaches a terminal without control characters, and anything else as it is."""
        if not self.as_json:
            print(safe(text) if self._stdout.isatty() else text, end=end, file=self._stdout, flush=True)

    def note(self, text: str) -> None:
        """Progress and remarks, for people: to stderr, or nothing with `--quiet`."""
        if not self.quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Why the command failed: always to stderr."""
        with suppress(OSError):  # nobody reads it: the answer goes on
            print(safe(text), file=sys.stderr, flush=True)

    def result(self, value: dict[str, Any]) -> None:
        """The one object of `--json`."""
        if self.as_json:
            print(json.dumps(value), file=self._stdout, flush=True)

    @contextmanager
    def quiet_stdout(self) -> Iterator[None]:
        """With `--json`, sends whatever else is printed (such as by libraries) to stderr."""
        if self.as_json:
            with redirect_stdout(sys.stderr):
                yield
        else:
            yield

    @contextmanager
    def progress(self, expected: Mapping[str, float] | None = None) -> Iterator[Advance]:
        """A progress bar for each stage on stderr, or lines where stderr is not a terminal; nothing with
        `--quiet`. With the seconds that are `expected` by stage both say how long all of them still take."""
        left = TimeLeft(expected) if expected else None
        if self.quiet:
            yield lambda stage, done, total: None
            return
        if not self._console.is_terminal:
            yield self._log_stages(left)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=self._console) as bars:
            tasks: dict[str, TaskID] = {}

            def advance(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    name = f"{stage} ({left.place(stage)})" if left else stage
                    tasks[stage] = bars.add_task(name, total=total, left="")
                for task in tasks.values():  # only the stage that runs says how long
                    bars.update(task, left="")
                said = _time_left(left, stage, done, total)
                bars.update(tasks[stage], completed=done, total=total, left=said)

            yield advance

    def _log_stages(self, left: TimeLeft | None) -> Advance:
        ended = said = time.monotonic()

        def advance(stage: str, done: int, total: int) -> None:
            nonlocal ended, said
            now = time.monotonic()
            rest = _time_left(left, stage, done, total)
            name = f"{stage} ({left.place(stage)})" if left else stage
            if done >= total:
                self.note(f"{name}: {total} of {total}, {now - ended:.1f} s" + (f", {rest}" if rest else ""))
                ended = said = now
            elif rest and now - said >= LOG_SECONDS:
                self.note(f"{name}: {done} of {total}, {rest}")
                said = now

        return advance


def _time_left(left: TimeLeft | None, stage: str, done: int, total: int) -> str:
    """ "14 min left", or nothing where nobody knows or nothing is left."""
    seconds = 0.0 if left is None else left.seconds(stage, done, total)
    return f"{show_duration(seconds)} left" if seconds >= 1 else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first to the left and the others to the right, under their names."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )
