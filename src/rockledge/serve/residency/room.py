"""How much may be in the server at once, over all of its models."""

from __future__ import annotations

from typing import Protocol

from rockledge.serve.errors import ApiError, server_busy

MOST_TOKENS = 1 << 20
"""Tokens of prompts that calls in the server may have together (36 bytes each here)."""

MOST_PROMPTS = 1 << 14
"""Prompts, and candidates of their answers, that calls may have together: one may have 2048, each of which
takes some kB besides its tokens, and every step looks at all that wait."""


def require_repeatable(tokens: int, prompts: int, param: str) -> None:
    """Refuses a text of so many tokens that would stand in each of so many prompts, before they are made: a
    request that is short itself would take gigabytes.

    Raises:
        ApiError: 400.
    """
    if tokens * prompts > MOST_TOKENS:
        raise ApiError(
            f"'{param}' has {tokens} tokens and would be read in {prompts} prompts, {tokens * prompts} in "
            f"all, expected at most {MOST_TOKENS}; shorten it, or send fewer at a time",
            param=param,
        )


class Held(Protocol):
    """A call that runs or waits."""

    @property
    def tokens(self) -> int:
        """Tokens of all its prompts."""

    @property
    def prompts(self) -> int:
        """How many requests it has."""


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

    def require_prompts(self, tokens: int, prompts: int) -> None:
        """Refuses so many prompts of so many tokens unless there is room for them, or nobody else is here.

        Raises:
            ApiError: 503.
        """
        held = sum(other.tokens for other in self._held)
        if held and held + tokens > MOST_TOKENS:
            raise server_busy(
                f"prompts of {held} tokens are already running or waiting; try again in a moment"
            )
        others = sum(other.prompts for other in self._held)
        if others and others + prompts > MOST_PROMPTS:
            raise server_busy(f"{others} prompts are already running or waiting; try again in a moment")

    def enter(self, call: Held) -> None:
        """The call is in the server."""
        self._held.add(call)

    def leave(self, call: Held) -> None:
        """It is no longer; leaving twice is allowed."""
        self._held.discard(call)
