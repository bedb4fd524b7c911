"""Run as a program: `rockledge` whose model gives the answers of a script, one after the other.

Usage: python scripted_model.py ANSWERS.json COMMAND ARGUMENTS...

The file holds a list of answers, each a list of pieces of text. A piece that is null waits for Ctrl-C, one
that is a number until so many bytes have been typed: the time that a slow model takes. Meanwhile the title of
the window is "waiting". Everything else is the real program.
"""

import fcntl
import json
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rockledge.cli.main import main
from rockledge.runtime.engine import Engine
from rockledge.runtime.piece import Piece, RequestStats


def typed() -> int:
    """Bytes that wait in the terminal."""
    return int(struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, bytes(4)))[0])


class Scripted(Iterator[Piece]):
    """Pieces as `Engine.generate` returns them, of no work at all."""

    stats = RequestStats()

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces

    def __next__(self) -> Piece:
        return next(self._pieces)


def scripted(answers: Iterator[list[str | int | None]]) -> Callable[..., Iterator[Piece]]:
    """`Engine.generate` with another model."""

    def pieces(cancelled: Callable[[], bool]) -> Iterator[Piece]:
        for text in next(answers):
            if not isinstance(text, str):
                print("\x1b]0;waiting\x07", end="", file=sys.stderr, flush=True)  # the window's title
            while not cancelled() and (text is None or (isinstance(text, int) and typed() < text)):
                time.sleep(0.002)
            if not isinstance(text, str):
                print("\x1b]0;\x07", end="", file=sys.stderr, flush=True)
            if cancelled():
                return
            if isinstance(text, str):
                yield Piece(text, (0,), None, None, None)
        yield Piece("", (), None, None, "stop")

    def generate(
        self: Engine, prompt: Sequence[int], *, cancelled: Callable[[], bool], **_: Any
    ) -> Iterator[Piece]:
        return Scripted(pieces(cancelled))

    return generate


if __name__ == "__main__":
    Engine.generate = scripted(iter(json.loads(Path(sys.argv[1]).read_text())))  # type: ignore[method-assign]
    sys.exit(main(sys.argv[2:]))
