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
    except (OSError, OverflowError) as error:
        sock.close()
        raise _refusal(host, port, error) from None
    return sock


def _refusal(host: str, port: int, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or error
    return UsageError(f"cannot listen on {host} port {port} ({reason}); choose another --host or --port")


def run_server(app: FastAPI, sock: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serves on a bound socket until SIGINT (then raises KeyboardInterrupt) or SIGTERM; `on_ready` gets the
    base URL.

    Raises:
        UsageError: another program has begun to listen on the address since it was bound.
    """
    host, port = sock.getsockname()[:2]
    try:
        sock.listen()
    except OSError as error:
        raise _refusal(host, port, error) from None
    shown = f"[{host}]" if ":" in host else host
    Server(app, lambda: on_ready(f"http://{shown}:{port}")).run(sockets=[sock])
