"""Which web pages may use the server: those it sends itself, and those of a list.

A browser says in `Origin` from where the page is that sends a request; other clients send none. Refusing the
request, not only the reading of its answer, is what keeps pages from making the machine work. The answers to
browsers' own questions are those of the Fetch standard (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rockledge.errors import UsageError
from rockledge.serve.errors import ApiError
from rockledge.serve.safety.refusal import header_values, refuse

ANY, OPAQUE = "*", "null"
METHODS = "GET, HEAD, POST, OPTIONS"
PREFLIGHT_SECONDS = 600
EXPOSED = (
    "Retry-After, X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens, "
    "X-Rockledge-Dropped-Messages"
)
"""Headers of an answer that a page may read besides the usual ones."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": "80", "https": "443"}
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")


@dataclass(frozen=True)
class Origins:
    """`allowed`: origins as browsers write them, in lower case; "*" for all, "null" for pages without one
    (files, sandboxed frames)."""

    allowed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Sequence[str]) -> Origins:
        """Those of a list.

        Raises:
            UsageError: one is not an origin.
        """
        return cls(frozenset(_checked(origin) for origin in given))

    def allows(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may use the server that it calls `host`."""
        if ANY in self.allowed or origin in self.allowed:
            return True
        plain = _plain(origin.lower())
        if plain is None:
            return False
        scheme = plain.split("://")[0]
        return plain in self.allowed or (scheme in _PORTS and plain == _plain(f"{scheme}://{host.lower()}"))


class KnownOrigin:
    """Lets requests of allowed pages through, and of everything that is not a browser."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        given = header_values(scope, b"origin") if scope["type"] == "http" else []
        if not given:
            await self._app(scope, receive, send)
            return
        host = (header_values(scope, b"host") or [""])[0]
        if len(given) > 1 or not self._origins.allows(given[0], host):
            error = ApiError(
                f"web pages of {given[0][:100]!r} may not use this server; start it with --allow-origin "
                "ORIGIN if they may",
                status=403,
                code="origin_not_allowed",
            )
            await refuse(error, scope, receive, send)
            return
        allowed = {"Access-Control-Allow-Origin": given[0], "Vary": "Origin"}
        if scope["method"] == "OPTIONS" and header_values(scope, b"access-control-request-method"):
            await Response(status_code=204, headers={**allowed, **_permission(scope)})(scope, receive, send)
            return
        shown = {**allowed, "Access-Control-Expose-Headers": EXPOSED}
        extra = [(name.lower().encode(), value.encode("latin-1")) for name, value in shown.items()]

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self._app(scope, receive, sending)


def _permission(scope: Scope) -> dict[str, str]:
    """What a browser is told that asks before it sends a page's request."""
    headers = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(PREFLIGHT_SECONDS)}
    wanted = ", ".join(header_values(scope, b"access-control-request-headers"))
    if _HEADER_NAMES.fullmatch(wanted):
        headers["Access-Control-Allow-Headers"] = wanted
    if header_values(scope, b"access-control-request-private-network") == ["true"]:
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers


def _plain(origin: str) -> str | None:
    """An origin without the port that goes without saying; None for what is not an origin."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return None
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, _PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _checked(origin: str) -> str:
    plain = origin if origin in (ANY, OPAQUE) else _plain(origin.lower())
    if plain is None:
        raise UsageError(
            f"--allow-origin {origin!r}, expected one such as http://localhost:3000, without a path, "
            "or * for all"
        )
    return plain
