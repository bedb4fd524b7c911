"""A program in a terminal of its own, as its user sees and types into it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

PATIENCE = 20.0  # seconds; only a test that fails waits so long


class Window:
    """A pseudo-terminal of `columns` by `rows` with the program `python ARGUMENTS` in it."""

    def __init__(self, arguments: list[str], environment: dict[str, str], columns: int, rows: int) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._status: int | None = None
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:  # pragma: no cover (another process)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **environment})

    def lines(self) -> list[str]:
        """All lines that are not empty, those that have left the window too."""
        above = [
            "".join(line[i].data for i in range(self.screen.columns)) for line in self.screen.history.top
        ]
        return [line.rstrip() for line in [*above, *self.screen.display] if line.strip()]

    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines())

    def type(self, keys: str) -> None:
        """What the user presses; "\\r" is Enter."""
        os.write(self._terminal, keys.encode())

    def paste(self, text: str) -> None:
        """As a terminal sends what is pasted: bracketed, with the Enter key for ends of lines."""
        self.type(f"\x1b[200~{text}\x1b[201~".replace("\n", "\r"))

    def wait_for(self, done: Callable[[], bool] | str) -> None:
        """Until a condition holds, or a text that matches the pattern ends what the window shows."""
        shown = done if callable(done) else lambda: re.search(rf"(?:{done})\Z", self.text()) is not None
        end = time.monotonic() + PATIENCE
        while not shown():
            assert time.monotonic() < end, f"waited in vain for {done} in:\n{self.text()}"
            self._receive()

    def prompted(self) -> None:
        """Until the program waits for a message: the last line is an empty prompt."""
        self.wait_for(lambda: self.lines()[-1:] == [">"] and self.screen.cursor.x == 2)

    def waiting(self) -> None:
        """Until the scripted model waits, so that keys are typed during an answer."""
        self.wait_for(lambda: self.screen.title == "waiting")

    def send(self, message: str) -> None:
        """Types a message, sends it and waits for the next prompt."""
        self.type(message)
        before = len(self.lines())
        self.type("\r")
        self.wait_for(lambda: len(self.lines()) > before)
        self.prompted()

    def _receive(self) -> bool:
        """Whether the program's end is still open."""
        if not select.select([self._terminal], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # EIO: nobody has the other end open
            data = b""
        self._stream.feed(data)
        return bool(data)

    def echoes(self) -> bool:
        """Whether the terminal itself shows what is typed, as a shell expects it."""
        return bool(termios.tcgetattr(self._terminal)[3] & termios.ECHO)

    def end(self) -> int:
        """The exit code, once the program has ended."""
        if self._status is None:
            limit = time.monotonic() + PATIENCE
            while self._receive():
                assert time.monotonic() < limit, f"still there:\n{self.text()}"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def kill(self, number: int) -> None:
        """Sends the program a signal."""
        os.kill(self._pid, number)

    def close(self) -> None:
        """Ends the program in any case."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._terminal)


SCRIPTED = Path(__file__).with_name("scripted_model.py")
