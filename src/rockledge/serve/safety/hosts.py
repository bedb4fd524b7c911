"""Which names a request may call the server by: the check against DNS rebinding.

A web page may make its own name point at 127.0.0.1; for the browser this server is then the page's own, and
only the `Host` header tells. An address in `Host` cannot be such a name, so on a server that is bound beyond
this machine every address is as good as another.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from rockledge.errors import UsageError
from rockledge.serve.errors import ApiError
from rockledge.serve.safety.refusal import header_values, refuse

ANY = "*"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?|\[?[0-9a-fA-F:.]+\]?")


@dataclass(frozen=True)
class Hosts:
    """`names` in lower case, addresses as `ipaddress` writes them; loopback addresses are always allowed,
    others with `addresses`."""

    names: frozenset[str] = frozenset({"localhost"})
    addresses: bool = False

    @classmethod
    def of(cls, bound: str, more: Sequence[str] = ()) -> Hosts:
        """Those of a server that listens on `bound`: loopback and that address; beyond loopback every
        address and this machine's own name. `more`: further names; "*" allows every one.

        Raises:
            UsageError: one of `more` is not a name.
        """
        names = {"localhost", _plain(bound), *map(_checked, more)}
        beyond = not is_loopback(bound)
        if beyond:
            own = _plain(socket.gethostname())
            names |= {own, own if "." in own else f"{own}.local"}
        return cls(frozenset(names), beyond)

    def allows(self, header: str) -> bool:
        """Whether a `Host` header names this server; its port does not matter."""
        if ANY in self.names:
            return True
        found = _HOST.fullmatch(header)
        if found is None:
            return False
        name = _plain(found[1])
        return name in self.names or is_loopback(name) or (self.addresses and _is_address(name))


class KnownHost:
    """Lets requests through that call the server by one of its names. HTTP/1.0 has requests without one;
    browsers do not send them."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            given = header_values(scope, b"host")
            if len(given) > 1 or not all(map(self._hosts.allows, given)):
                error = ApiError(
                    f"the request is for the host {', '.join(given)[:100]!r}, expected one of this server's "
                    "names; start it with --allow-host NAME if this is one",
                    status=403,
                    code="unknown_host",
                )
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    """A name or address in the one way it is compared."""
    name = name.strip("[]").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.removesuffix(".")


def _checked(name: str) -> str:
    if name != ANY and not _NAME.fullmatch(name):
        raise UsageError(
            f"--allow-host {name!r}, expected a name or address without scheme and port, or * for all"
        )
    return _plain(name)
