"""How much may be in the server at once, over all of its models."""

from __future__ import annotations

from typing import Protocol

from rockledge.serve.errors import server_busy

MOST_TOKENS = 1 << 20
"""Tokens of prompts that calls in the server may have together (36 bytes each here)."""


class Held(Protocol):
    """A call that runs or waits."""

    @property
    def tokens(self) -> int:
        """Tokens of all its prompts."""


class Room:
    """All calls that are in the server, running and waiting, whichever their models."""

    def __init__(self, most_calls: int) -> None:
        self.most_calls = most_calls
        self._held: set[Held] = set()

    def __len__(self) -> int:
        return len(self._held)

    def require(self) -> None:
        """Refuses a call that there is no place for, before anything is done for it.

        Raises:
            ApiError: 503.
        """
        if len(self) >= self.most_calls:
            raise server_busy(
                f"{self.most_calls} requests are already running or waiting; try again in a moment"
            )

    def require_tokens(self, more: int) -> None:
        """Refuses prompts of so many tokens unless there is room for them, or nobody else is here.

        Raises:
            ApiError: 503.
        """
        held = sum(other.tokens for other in self._held)
        if held and held + more > MOST_TOKENS:
            raise server_busy(
                f"prompts of {held} tokens are already running or waiting; try again in a moment"
            )

    def enter(self, call: Held) -> None:
        """The call is in the server."""
        self._held.add(call)

    def leave(self, call: Held) -> None:
        """It is no longer; leaving twice is allowed."""
        self._held.discard(call)
