"""Stop strings over streamed text: what can already be shown, and where the text ends."""

from collections.abc import Sequence


class StopMatcher:
    """Takes text in pieces of any size and gives out what certainly comes before every stop string.

    The stop string that is complete first ends the text (of two that end together, the longer one), so the
    result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str) -> tuple[str, bool]:
        """Adds `text`; returns what may be shown now, and whether a stop string was found right after it."""
        if not self._stops:
            return text, False
        self._held += text
        best: tuple[int, int] | None = None
        for stop in self._stops:
            start = self._held.find(stop)
            if start >= 0:
                found = (start + len(stop), start)
                best = found if best is None else min(best, found)
        if best is not None:
            self.found = self._held[best[1] : best[0]]
            shown, self._held = self._held[: best[1]], ""
            return shown, True
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def flush(self) -> str:
        """What is still held back, when the text has ended without a stop string."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` without completing it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
