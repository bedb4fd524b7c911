"""Lines for a window out of text that arrives in pieces: broken between words, safe to show."""

from __future__ import annotations

from collections.abc import Callable

from wcwidth import wcswidth, wcwidth

from rockledge.cli.shown import safe

TAB = 8

# Scripts written without spaces: a line may end between any two of their characters (Unicode UAX #14, ID).
# Hangul is not among them: Korean puts spaces between words.
_IDEOGRAPHS = (
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFD),
)
# Never first in a line (UAX #14: CL, EX, NS), and never last in one (OP).
_NOT_FIRST = frozenset(
    "、。，．：；！？）］｝」』】〉》〕ー々ゝゞヽヾぁぃぅぇぉっゃゅょァィゥェォッャュョ・…"
)
_NOT_LAST = frozenset("（［｛「『【〈《〔")


class WordWrap:
    """Text in, lines of less than `columns()` columns out. The last word is held back until it has ended.

    The last column stays free, because terminals disagree about where the cursor is once it is filled.
    Control characters become U+FFFD: what a model writes must not move the cursor or change the terminal.
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._column = 0
        self._gap = 0
        self._word = ""
        self._split = False  # whether the word was too wide for a line, so that it goes on where it is

    def feed(self, text: str) -> str:
        """What can be shown once `text` has arrived too."""
        return "".join(map(self._take, text))

    def end(self) -> str:
        """The rest; afterwards the next line begins."""
        rest = self._place()
        self._column = self._gap = 0
        self._split = False
        return rest

    def _take(self, char: str) -> str:
        if char == "\n":
            return self.end() + "\n"
        if char == "\r":
            return ""
        if char in " \t":
            placed, self._split = self._place(), False
            self._gap += 1 if char == " " else TAB - (self._column + self._gap) % TAB
            return placed
        char = safe(char)
        placed = self._place() if self._word and _may_break(self._word[-1], char) else ""
        self._word += char
        # A word that no line can hold is not worth waiting for.
        return placed + self._place() if self._split or width(self._word) > self._room() else placed

    def _room(self) -> int:
        return max(self._columns() - 1, 1)

    def _place(self) -> str:
        """Puts the word into the line, or begins another with it."""
        word, gap, room = self._word, self._gap, self._room()
        if not word:
            return ""
        self._word, self._gap = "", 0
        if self._split:
            return self._broken(word, room)
        wide = width(word)
        begin = ""
        if self._column + gap + wide > room:
            begin = "\n" if self._column else ""
            gap = 0 if self._column else max(room - wide, 0)
            self._column = 0
        if wide > room:
            self._split = True
            return begin + self._broken(word, room)
        self._column += gap + wide
        return begin + " " * gap + word

    def _broken(self, word: str, room: int) -> str:
        """Part of a word that is wider than a line, in lines that are full."""
        shown = ""
        for char in word:
            wide = max(wcwidth(char), 0)
            if self._column and self._column + wide > room and wide:
                shown += "\n"
                self._column = 0
            shown += char
            self._column += wide
        return shown


def width(text: str) -> int:
    """Columns of text without control characters."""
    whole = wcswidth(text)
    return whole if whole >= 0 else sum(max(wcwidth(char), 0) for char in text)


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters that no space separates."""
    if after in _NOT_FIRST or before in _NOT_LAST or wcwidth(after) == 0:
        return False
    return _ideograph(before) or _ideograph(after) or before in _NOT_FIRST or after in _NOT_LAST


def _ideograph(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _IDEOGRAPHS)
