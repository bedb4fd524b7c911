"""TLS from files of a certificate and its key, with the connections' bounds holding from their first byte.

uvicorn's own way would count a connection, and watch its silence, only after the handshake; who never shakes
hands could then hold as many as there are file descriptors.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path
from typing import Any

from rockledge.errors import UsageError

NEW_S = 1.0
"""So long a handshake is too new to make room for another one."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The context of a server with a certificate (and those between it and its root, in one PEM file).

    Raises:
        UsageError: a file cannot be read, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from None
    try:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM data"
        raise UsageError(
            f"{certificate} and {key} are not a certificate and its key without a password ({reason}); "
            "both must be PEM files"
        ) from None
    return context


class Handshake(SSLProtocol):
    """TLS below an HTTP connection; `opened` are all that are not closed, at most `most`. One that has not
    shaken hands yet makes room for a new one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        most: int,
        seconds: float,
        opened: set[Handshake],
    ) -> None:
        nobody: Any = None  # waits for the end of the handshake
        time: Any = seconds  # typeshed takes whole seconds only
        super().__init__(loop, protocol, context, nobody, server_side=True, ssl_handshake_timeout=time)
        self._most = most
        self._opened = opened
        self._protocol = protocol
        self._since = loop.time()

    def connection_made(self, transport: Any) -> None:
        """Begins the handshake, or closes the connection where there are too many."""
        self._opened.add(self)
        self._below = transport
        super().connection_made(transport)
        if len(self._opened) > self._most:
            self._oldest()._below.abort()

    def _oldest(self) -> Handshake:
        """The one that has been shaking hands for the longest time, if that is long; else this one."""
        old = self._since - NEW_S
        pending = [
            h for h in self._opened if h._since < old and getattr(h._protocol, "transport", None) is None
        ]
        return min(pending, key=lambda h: h._since, default=self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The end of the connection."""
        self._opened.discard(self)
        super().connection_lost(exc)
