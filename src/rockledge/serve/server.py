"""Runs an application on an address until the process is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from rockledge.errors import UsageError
from rockledge.serve.connection import connection_class, most_connections
from rockledge.serve.limits import Limits
from rockledge.serve.seldom import Seldom

FLUSH_SECONDS = 2.0
"""After the grace, until the last events of answers are out."""

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server that calls back when it accepts requests, and when it is about to end."""

    def __init__(
        self, app: FastAPI, limits: Limits, on_ready: Callable[[], None], on_end: Callable[[], None]
    ) -> None:
        config = uvicorn.Config(
            app,
            http=connection_class(limits, most_connections(limits.connections)),  # type: ignore[arg-type]
            ws="none",
            log_config=None,  # uvicorn's own would write the access log to stdout
            timeout_keep_alive=int(limits.keep_alive_s),
            timeout_graceful_shutdown=int(limits.grace_s + FLUSH_SECONDS + 1),
        )
        super().__init__(config)
        self._on_ready = on_ready
        self._on_end = on_end
        self._seldom = Seldom(log)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then calls back."""
        asyncio.get_running_loop().set_exception_handler(self._loop_error)
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers finish; another Ctrl-C does not. (uvicorn repeats every signal that it
        has caught at its end, and a second KeyboardInterrupt would end Python as if nobody had handled it.)"""
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
        if isinstance(error, OSError):  # such as no file descriptor for another connection
            reason = error.strerror or str(error)
            self._seldom.warning("the network: %s (%s)", context.get("message", "failed"), reason)
        else:
            loop.default_exception_handler(context)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes a free one.

    Raises:
        UsageError: the address is in use or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host} port {port} ({error}); choose another --host or --port"
        ) from None


def run_server(
    app: FastAPI,
    host: str,
    port: int,
    limits: Limits,
    *,
    on_ready: Callable[[str], None],
    on_end: Callable[[], None],
) -> None:
    """Serves until SIGINT (then raises KeyboardInterrupt) or SIGTERM; `on_ready` gets the base URL, `on_end` is
    called when the signal has come.

    Raises:
        UsageError: as `listen`.
    """
    with listen(host, port) as sock:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{sock.getsockname()[1]}"
        Server(app, limits, lambda: on_ready(url), on_end).run(sockets=[sock])
