"""A log that says the same only once a minute, for what others can cause as often as they like."""

from __future__ import annotations

import logging
import time

SECONDS = 60.0


class LogThrottle:
    """Logs each sentence (by its format) once a minute."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, float] = {}

    def info(self, sentence: str, *values: object) -> None:
        """Something that clients do."""
        self._say(logging.INFO, sentence, values)

    def warning(self, sentence: str, *values: object) -> None:
        """Something that the server's owner may want to change."""
        self._say(logging.WARNING, sentence, values)

    def _say(self, level: int, sentence: str, values: tuple[object, ...]) -> None:
        now = time.monotonic()
        if now - self._said.get(sentence, -SECONDS) >= SECONDS:
            self._said[sentence] = now
            self._log.log(level, sentence, *values)
