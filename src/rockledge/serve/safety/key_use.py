"""What a key has taken lately: requests of a minute, tokens of a day, requests at work."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

SLOTS = 60
"""Parts of a window: what leaves it does so a part at a time, so that no stretch of its length, however it
lies, has more than the limit (and up to a part later than it might)."""


class Window:
    """How much came in the last `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._slot_s = seconds / SLOTS
        self._clock = clock
        self._slots: deque[tuple[int, int]] = deque()  # number of the slot, amount
        self._total = 0

    @property
    def total(self) -> int:
        """The amount now."""
        oldest = self._now() - SLOTS
        while self._slots and self._slots[0][0] < oldest:
            self._total -= self._slots.popleft()[1]
        return self._total

    def add(self, amount: int) -> None:
        """So much more."""
        now = self._now()
        if self._slots and self._slots[-1][0] == now:
            self._slots[-1] = (now, self._slots[-1][1] + amount)
        else:
            self._slots.append((now, amount))
        self._total += amount

    def seconds_until(self, room: int) -> float:
        """Seconds until no more than `room` is in the window, if nothing is added."""
        left = self.total
        for slot, amount in self._slots:
            if left <= room:
                break
            left -= amount
            end = (slot + SLOTS + 1) * self._slot_s
            if left <= room:
                return max(end - self._clock(), 0.0)
        return 0.0

    def _now(self) -> int:
        return math.floor(self._clock() / self._slot_s)


class KeyUse:
    """Of one key, since the server was started."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.requests = Window(60.0, clock)
        self.tokens = Window(86400.0, clock)
        self.concurrent = 0
