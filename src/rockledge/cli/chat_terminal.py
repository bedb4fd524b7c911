"""The terminal of a chat: messages are edited in it, answers stream into it, Ctrl-C is a request to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.utils import is_dumb_terminal

from rockledge.cli.answer import Printer
from rockledge.cli.window import window
from rockledge.cli.word_wrap import WordWrap

QUOTES = '"""'  # a message between two of these may have several lines, as in ollama
LEAVING = "[Ctrl-C again, or Ctrl-D, ends the conversation]"


class ChatTerminal:
    """`read` gives messages; between two of them `print` and `note` show something. Use `attached` around all
    of it.

    `tty` is the terminal's output. `answers` takes the text of answers and may be a file.
    """

    def __init__(
        self,
        tty: TextIO,
        answers: Printer,
        history: History,
        completer: Completer,
    ) -> None:
        self._tty = tty
        self._answers = answers
        self._interrupts = 0  # times Ctrl-C was pressed since the last message
        self._session: PromptSession[str] = PromptSession(
            message="> ",
            multiline=True,
            prompt_continuation="  ",
            history=history,
            completer=completer,
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=_keys(),
            output=_output(tty),
        )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While it lasts, Ctrl-C ends no program."""
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1

    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed since the last message."""
        return self._interrupts > 0

    def read(self) -> str | None:
        """The next message that is not empty. None at Ctrl-D, and at a second Ctrl-C with nothing typed in
        between; Ctrl-C on a message that has begun drops it."""
        while self._interrupts < 2:
            try:
                typed = self._session.prompt()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if self._session.default_buffer.text:
                    self._interrupts = 0
                else:
                    self._interrupts += 1
                    if self._interrupts == 1:
                        self.note(LEAVING)
                continue
            self._interrupts = 0
            # Bytes that are not UTF-8 arrive as surrogates, which no tokenizer takes.
            text = unquoted(typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            if text.strip():
                return text
        return None

    def print(self, text: str = "", end: str = "\n") -> None:
        """Part of an answer; its last line ends with `end`."""
        self._answers.print(text, end)

    def note(self, text: str) -> None:
        """Lines that are not part of the conversation."""
        wrap = WordWrap(lambda: window(self._tty).columns)
        print(wrap.feed(text) + wrap.end(), file=self._tty, flush=True)


def unquoted(text: str) -> str:
    """A message without the quotes around all of it."""
    inner = text.strip()
    if inner.startswith(QUOTES) and inner.endswith(QUOTES) and inner.count(QUOTES) == 2:
        return inner.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return text


def _output(tty: TextIO) -> Output | None:
    """None, the library's own choice, for a terminal that only prints. Otherwise one that never asks where
    the cursor is: a serial console does not answer, and a late answer would look like typed text."""
    if is_dumb_terminal():
        return None

    def size() -> Size:
        now = window(tty)
        return Size(rows=now.lines, columns=now.columns)

    return Vt100_Output(tty, size, term=os.environ.get("TERM"), enable_cpr=False)


def _keys() -> KeyBindings:
    """Enter sends, Alt-Enter begins a new line; so does Enter after quotes that are still open."""
    keys = KeyBindings()
    editing = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=editing)
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text
        if text.lstrip().startswith(QUOTES) and text.count(QUOTES) == 1:
            event.current_buffer.newline(copy_margin=False)
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=editing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys
