"""Runs a command in a terminal and draws what its window shows at the end, as SVG.

Usage, from the root of the repository: python tools/terminal_picture.py OUT.svg COMMAND ARGUMENT...
docs/demo.svg is `rockledge demo --max-tokens 48`, after `make demo`; .venv/bin comes first on the path.
"""

import argparse
import fcntl
import os
import pty
import shlex
import struct
import sys
import termios
from html import escape
from pathlib import Path

import pyte

COLUMNS, MOST_ROWS = 100, 90
SIZE, ADVANCE, LINE, MARGIN = 14, 8.43, 19, 16  # pixels; a monospaced letter is 0.602 of its size wide
BACKGROUND, TEXT, DIM, GREEN = "#0d1117", "#e6edf3", "#8b949e", "#7ee787"


def shown(command: list[str]) -> list[str]:
    """The lines in the window when the command has ended, from the one on where it was typed; SystemExit if
    it failed or they are too many."""
    screen = pyte.HistoryScreen(COLUMNS, MOST_ROWS, history=1)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {shlex.join(command)}\r\n".encode())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", MOST_ROWS, COLUMNS, 0, 0))
        os.execvpe(command[0], command, {**os.environ, "PATH": path, "TERM": "xterm-256color"})
    while data := _received(terminal):
        stream.feed(data)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status:
        raise SystemExit("\n".join([*_lines(screen), f"{shlex.join(command)} ended with {status}"]))
    if screen.history.top:
        raise SystemExit(f"more than {MOST_ROWS} lines were printed; choose a shorter command")
    return _lines(screen)


def drawing(lines: list[str]) -> str:
    """The SVG of a window with those lines."""
    width = round(COLUMNS * ADVANCE + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    frame = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}">'
    )
    ground = f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
    texts = [_text(number, line, _colour(line)) for number, line in enumerate(lines) if line]
    return "\n".join([frame, ground, *texts, "</svg>\n"])


def _text(number: int, line: str, colour: str) -> str:
    y = MARGIN + number * LINE + SIZE
    # The length keeps columns in line whatever font the reader has.
    length = f'textLength="{len(line) * ADVANCE:.1f}"'
    shape = f'x="{MARGIN}" y="{y}" fill="{colour}" xml:space="preserve" {length}'
    return f"<text {shape}>{escape(line, quote=False)}</text>"


def _colour(line: str) -> str:
    if line.startswith(("$ ", "> ")):  # what the user says
        return GREEN
    return DIM if "━" in line else TEXT


def _received(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # EIO: nobody has the other end open
        return b""


def _lines(screen: pyte.Screen) -> list[str]:
    lines = [line.rstrip() for line in screen.display]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    arguments.out.write_text(drawing(shown(arguments.command)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
