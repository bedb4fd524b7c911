"""Output of commands: answers to stdout, notes and progress to stderr, `--json` one object on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

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
        """Part of the answer, for people: stdout, or nothing with `--json`."""
        if not self.as_json:
            print(text, end=end, file=self._stdout, flush=True)

    def note(self, text: str) -> None:
        """Progress and remarks, for people: to stderr, or nothing with `--quiet`."""
        if not self.quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Why the command failed: always to stderr."""
        print(text, file=sys.stderr, flush=True)

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
    def progress(self) -> Iterator[Advance]:
        """A progress bar for each stage on stderr, or a line for each where stderr is not a terminal."""
        if not self._console.is_terminal:
            yield self._log_stages()
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as bars:
            tasks: dict[str, TaskID] = {}

            def advance(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield advance

    def _log_stages(self) -> Advance:
        ended = time.monotonic()

        def advance(stage: str, done: int, total: int) -> None:
            nonlocal ended
            if done >= total:
                self.note(f"{stage}: {total} of {total}, {time.monotonic() - ended:.1f} s")
                ended = time.monotonic()

        return advance


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
