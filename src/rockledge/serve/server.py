"""Runs an application on an address until the process is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from rockledge.errors import UsageError

SHUTDOWN_SECONDS = 5  # how long answers in progress may go on after the signal


class Server(uvicorn.Server):
    """A uvicorn server that calls back when it accepts requests."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        # log_config None: uvicorn's own would write the access log to stdout.
        super().__init__(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=SHUTDOWN_SECONDS))
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then calls back."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


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


def run_server(app: FastAPI, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves until SIGINT (then raises KeyboardInterrupt) or SIGTERM; `on_ready` gets the base URL.

    Raises:
        UsageError: as `listen`.
    """
    with listen(host, port) as sock:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{sock.getsockname()[1]}"
        Server(app, lambda: on_ready(url)).run(sockets=[sock])
