"""Connections within bounds: how many there are, and how long one may be silent.

uvicorn bounds requests, not connections, and its time-outs are for connections that had a request; this adds
the rest to its h11 protocol. A connection without a request makes room for a new one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rockledge.serve.errors import RETRY_AFTER_SECONDS, server_busy
from rockledge.serve.http.log_throttle import LogThrottle
from rockledge.serve.limits import Limits
from rockledge.serve.safety.tls import Handshake
from rockledge.serve.style import style_of

SPARE_DESCRIPTORS = 32
"""File descriptors that are left for all else: prefixes on disk, the artifact, connections to be refused."""

MOST_REFUSED = 8
"""Connections beyond the limit that are told so; of more, nothing is said."""

REFUSED_S = 1.0
NEW_S = 1.0
"""So long a connection is too new to make room for another one: its request may be on the way."""

log = logging.getLogger(__name__)


def most_connections(wanted: int) -> int:
    """As many of `wanted` connections as there can be file descriptors for, after raising the soft limit of
    this process as far as needed."""
    used = len(list(Path("/proc/self/fd").iterdir())) + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= used + wanted:
        raised = max(soft, used + wanted)
    else:
        raised = hard
    if soft not in (resource.RLIM_INFINITY, raised):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    possible = max(1, min(wanted, raised - used)) if raised != resource.RLIM_INFINITY else wanted
    if possible < wanted:
        log.warning(
            "connections: %d at once instead of %d, as many as `ulimit -n` (%d) allows",
            possible,
            wanted,
            raised,
        )
    return possible


def connection_class(
    limits: Limits, most: int, tls: ssl.SSLContext | None = None
) -> Callable[..., asyncio.Protocol | Handshake]:
    """What makes uvicorn's protocol objects: at most `most` connections at a time, with `tls` or without."""
    plain = partial(Connection, limits=limits, most=most, refused=set(), throttled=LogThrottle(log))
    if tls is None:
        return plain
    opened: set[Handshake] = set()

    def encrypted(*args: Any, _loop: asyncio.AbstractEventLoop | None = None, **options: Any) -> Handshake:
        loop = _loop or asyncio.get_running_loop()
        connection = plain(*args, _loop=loop, **options)
        return Handshake(
            loop, connection, tls, most=most + MOST_REFUSED, seconds=limits.header_s, opened=opened
        )

    return encrypted


class Connection(H11Protocol):
    """One connection. Its timer runs while it has no request, and while the rest of one that was answered
    already still comes in."""

    def __init__(
        self,
        *args: Any,
        limits: Limits,
        most: int,
        refused: set[Connection],
        throttled: LogThrottle,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._most = most
        self._refused = refused
        self._throttled = throttled
        self._silence: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._since = 0.0

    @property
    def idle(self) -> bool:
        """Whether no request is at work here."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection in, or refuses it."""
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            # Otherwise the second packet of an answer waits 40 ms for the client to confirm the first.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._since = self.loop.time()
        if len(self.connections) <= self._most or self._make_room():
            self._silence = self.loop.call_later(self._limits.header_s, self._too_silent)
        else:
            self._refuse()

    def _make_room(self) -> bool:
        """Closes the connection that has been without a request for the longest time, if there is one."""
        old = self.loop.time() - NEW_S
        idle = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        idle = [other for other in idle if other.idle and other._since < old]
        if not idle:
            return False
        oldest = min(idle, key=lambda other: other._since)
        self.connections.discard(oldest)
        oldest.transport.close()
        return True

    def _refuse(self) -> None:
        self.connections.discard(self)
        self._throttled.warning(
            "%d connections are open, as many as there may be; others are refused", self._most
        )
        if len(self._refused) >= MOST_REFUSED:
            self.transport.abort()
            return
        self._refused.add(self)
        self._silence = self.loop.call_later(REFUSED_S, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Reads on; a refused connection gets its answer."""
        if self in self._refused:
            self._answer_refused(data)
            return
        super().data_received(data)
        if not self.idle:
            self._since = self.loop.time()
            self._stop_silence()
        elif self._silence is None and self.conn.their_state is h11.IDLE:
            # The beginning of another request: uvicorn's own timer ended with its first byte.
            self._silence = self.loop.call_later(self._limits.header_s, self._too_silent)

    def _answer_refused(self, data: bytes) -> None:
        error = server_busy("the server has as many connections as it may have; try again in a moment")
        _, _, target = data.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = target.partition(" ")[0].partition("?")[0]
        body = json.dumps(style_of(path).failure(error)).encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Retry-After: {RETRY_AFTER_SECONDS}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def on_response_complete(self) -> None:
        """An answer is out; what is left of its request's body may come for a while."""
        self._since = self.loop.time()
        super().on_response_complete()
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._stop_silence()
            self._silence = self.loop.call_later(self._limits.header_s, self._too_silent)

    def pause_writing(self) -> None:
        """The client reads more slowly than its answer is made."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._limits.write_s, self._too_slow)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        self._refused.discard(self)
        self._stop_silence()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def _stop_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _too_silent(self) -> None:
        self._silence = None
        if not self.transport.is_closing():
            self._throttled.info(
                "a connection sent no whole request for %g s and was closed", self._limits.header_s
            )
            self.transport.abort()

    def _too_slow(self) -> None:
        self._throttled.info(
            "a client read nothing of its answer for %g s and was disconnected", self._limits.write_s
        )
        self.transport.abort()
