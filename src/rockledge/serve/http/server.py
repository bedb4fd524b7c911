"""Runs an application on an address until the process is stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from rockledge.errors import UsageError
from rockledge.serve.http.access_log import WithoutQuery
from rockledge.serve.http.connection import connection_class, most_connections
from rockledge.serve.http.log_throttle import LogThrottle
from rockledge.serve.limits import Limits

FLUSH_SECONDS = 2.0
"""After the grace, until the last events of answers are out."""

ACCEPTED_AT_ONCE = 4
"""Connections that the event loop accepts before it looks at them: what asyncio takes its `backlog` for. More
might use up the file descriptors before the first one is refused."""

BACKLOG = 1024
"""Connections that the system holds until they are accepted."""

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server that calls back when it accepts requests, and when it is about to end."""

    def __init__(
        self,
        app: FastAPI,
        limits: Limits,
        on_ready: Callable[[], None],
        on_end: Callable[[], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=connection_class(limits, most_connections(limits.connections), tls),  # type: ignore[arg-type]
            ws="none",
            log_config=None,  # uvicorn's own would write the access log to stdout
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=int(limits.keep_alive_s),
            timeout_graceful_shutdown=int(limits.grace_s + FLUSH_SECONDS + 1),
        )
        super().__init__(config)
        access = logging.getLogger("uvicorn.access")
        if not any(isinstance(known, WithoutQuery) for known in access.filters):
            access.addFilter(WithoutQuery())
        self._on_ready = on_ready
        self._on_end = on_end
        self._throttled = LogThrottle(log)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then calls back."""
        asyncio.get_running_loop().set_exception_handler(self._loop_error)
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers finish; another Ctrl-C does not. (uvicorn repeats at its end every
        signal that it has caught; once is enough.)"""
        if self.should_exit:
            self.force_exit = self.force_exit or sig == signal.SIGINT
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Calls back, then waits for answers in progress."""
        self._on_end()
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn leaves the application as it is then
            await self.lifespan.shutdown()

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) or self.should_exit:
            # Such as no file descriptor for another connection; or asyncio tries again after the end.
            reason = getattr(error, "strerror", None) or str(error)
            self._throttled.warning("the network: %s (%s)", context.get("message", "failed"), reason)
        else:
            loop.default_exception_handler(context)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that nobody else can take it while a model is loaded; who connects
    before `run_server` is refused. Port 0 takes a free one.

    Raises:
        UsageError: the address is in use or not of this machine.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except (OSError, OverflowError, TypeError, UnicodeError) as error:  # the last two: not a name at all
        sock.close()
        raise _refusal(host, port, error) from None
    return sock


def _refusal(host: str, port: int, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or error
    return UsageError(f"cannot listen on {host} port {port} ({reason}); choose another --host or --port")


def run_server(
    app: FastAPI,
    sock: socket.socket,
    limits: Limits,
    *,
    on_ready: Callable[[str], None],
    on_end: Callable[[], None],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serves on a bound socket until SIGINT (then raises KeyboardInterrupt) or SIGTERM; `on_ready` gets the
    base URL, `on_end` is called when the signal has come.

    Raises:
        UsageError: another program has begun to listen on the address since it was bound.
    """
    host, port = sock.getsockname()[:2]
    try:
        sock.listen()
    except OSError as error:
        raise _refusal(host, port, error) from None
    shown = f"[{host}]" if ":" in host else host
    # What is loaded stays: looking through it again and again would stop all threads for 50 ms each time.
    gc.collect()
    gc.freeze()
    url = f"{'http' if tls is None else 'https'}://{shown}:{port}"
    Server(app, limits, lambda: on_ready(url), on_end, tls).run(sockets=[sock])
