"""A process that prunes again and again, and kills itself each time at another moment, as nothing can catch.

    python -m tests.pruning.killed_runs TEACHER TEXT FOLDER SETTINGS MOMENT...

A moment counts what can be told apart from outside: units of progress, and calls that flush, rename, remove
or write something. The run that is killed at a moment is to make FOLDER/MOMENT/out; moments that are joined
by a comma are those of one run after the other in one place. Without moments, their number is printed.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rockledge.pruning import prune as pipeline
from rockledge.pruning import targets
from rockledge.pruning.prune import prune
from rockledge.pruning.request import request_of

WATCHED = ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "pwrite"), (shutil, "rmtree"))


class Moments:
    """Counts moments, and kills the process at one of them."""

    def __init__(self, last: int) -> None:
        self.count, self._last = 0, last

    def next(self) -> None:
        """The next one."""
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its calls are moments."""

        def counted(*arguments: Any, **named: Any) -> Any:
            self.next()
            return function(*arguments, **named)

        return counted


def run(teacher: str, text: str, out: Path, settings: str, last: int) -> int:
    """Prunes; returns how many moments there were."""
    moments = Moments(last)
    for place, name in WATCHED:
        setattr(place, name, moments.told(getattr(place, name)))
    asked = request_of({**json.loads(settings), "calibration": text})
    prune(teacher, out, asked, force=True, progress=lambda *_: moments.next())
    return moments.count


def main() -> None:
    """All runs, each in a child that is forked while nothing is being computed."""
    teacher, text, folder, settings, *wanted = sys.argv[1:]
    torch.set_num_threads(1)
    pipeline.pictures = lambda numbers: {}
    targets.TOLERANCE = 0.3  # type: ignore[misc]
    if not wanted:
        print(run(teacher, text, Path(folder) / "whole", settings, 0))
    for moments in wanted:
        for moment in map(int, moments.split(",")):
            child = os.fork()
            if child == 0:
                run(teacher, text, Path(folder) / moments / "out", settings, moment)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), f"moment {moment} never came"


if __name__ == "__main__":
    main()
