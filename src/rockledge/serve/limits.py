"""How much of everything a server takes: the numbers that its options set, and those that they do not."""

from __future__ import annotations

from dataclasses import dataclass

from rockledge.runtime.choices import PARALLEL

MOST_WAITING = 256
MOST_CONNECTIONS = 256
GRACE_SECONDS = 10.0
BODY_BYTES = 4 << 20
BYTES_PER_CONTEXT_TOKEN = 16
"""A body may have so many bytes for each token of the context, where that is more than `BODY_BYTES`: several
times what text takes."""


@dataclass(frozen=True)
class Limits:
    """`parallel` sequences are worked on at once, and `waiting` calls may wait besides; a request body has at
    most `body_bytes`, an answer `answer_tokens` (None: what the context holds); `connections` may be open.
    `grace_s`: how long answers may go on after the signal to end.

    `header_s`: until the first request of a connection is there; `keep_alive_s`: until the next; `piece_s`:
    between two pieces of a body; `body_s`: for all of it; `write_s`: until a client that reads nothing more
    of its answer is given up; `load_wait_s`: until a model is loaded that has to wait for others.
    """

    parallel: int = PARALLEL
    waiting: int = MOST_WAITING
    body_bytes: int = BODY_BYTES
    answer_tokens: int | None = None
    connections: int = MOST_CONNECTIONS
    grace_s: float = GRACE_SECONDS
    header_s: float = 10.0
    keep_alive_s: float = 30.0
    piece_s: float = 10.0
    body_s: float = 120.0
    write_s: float = 60.0
    load_wait_s: float = 120.0


def body_bytes(context: int) -> int:
    """The longest request body where no option says so."""
    return max(BODY_BYTES, BYTES_PER_CONTEXT_TOKEN * context)


def answer_tokens(wanted: int | None, room: int, limits: Limits) -> int:
    """Tokens of an answer: as many as `wanted` (None or below 0: all there is), within the `room` of the
    context and the server's limit."""
    most = room if limits.answer_tokens is None else min(room, limits.answer_tokens)
    return most if wanted is None or wanted < 0 else min(wanted, most)
