"""The window that answers stream into: its size, whole words at its edge, keys that stay unseen meanwhile."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rockledge.cli.answer import Printer
from rockledge.cli.terminal import Terminal


class WindowPrinter:
    """Shows answers through `printer`, whose text goes to the window of `tty`, without breaking words."""

    def __init__(self, printer: Printer, tty: TextIO) -> None:
        from rockledge.cli.word_wrap import WordWrap  # its tables of widths are for windows only

        self._printer = printer
        self._wrap = WordWrap(lambda: window(tty).columns)

    def print(self, text: str = "", end: str = "\n") -> None:
        """Part of an answer; its last line ends with `end`."""
        self._printer.print(self._wrap.feed(text) + (self._wrap.end() if end else ""), end)


@contextmanager
def answers_in_window(terminal: Terminal) -> Iterator[Printer]:
    """What shows answers while it lasts: `terminal` itself, unless its answers go to a window. Then words are
    not broken, and what is typed waits for the shell."""
    tty = sys.stdout
    if terminal.as_json or not tty.isatty():
        yield terminal
        return
    with keys_unseen(tty.fileno(), lines=True):
        yield WindowPrinter(terminal, tty)


@contextmanager
def keys_unseen(terminal: int, *, lines: bool) -> Iterator[None]:
    """Nothing that is typed into the terminal (a file descriptor) shows up in what is printed; it waits for
    who reads next: in `lines`, as a shell expects it, or as the keys that were pressed. Ctrl-C still
    interrupts. In the background, where the terminal belongs to others, it is left alone."""
    if not _in_foreground(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~(termios.ECHO | termios.ECHONL)
    if not lines:
        silent[0] &= ~termios.ICRNL  # Enter stays Enter
        silent[3] &= ~termios.ICANON
        silent[6][termios.VMIN], silent[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def _in_foreground(terminal: int) -> bool:
    """Whether this process may change the terminal: one in the background would be stopped for it."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # not the terminal that this process was started from
        return False


def window(tty: TextIO) -> os.terminal_size:
    """Columns and lines; 80 by 24 where the terminal does not know."""
    try:
        size = os.get_terminal_size(tty.fileno())
    except OSError:
        size = os.terminal_size((0, 0))
    return os.terminal_size((size.columns or 80, size.lines or 24))
