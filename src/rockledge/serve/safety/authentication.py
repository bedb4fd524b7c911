"""Requests need a key where the server has a file of them; what a key may take is checked before anything is
read of the body."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rockledge.serve.console.files import ADDRESSES
from rockledge.serve.errors import ApiError
from rockledge.serve.http.log_throttle import LogThrottle
from rockledge.serve.safety.key_file import Key
from rockledge.serve.safety.keys import Keys, unknown_key
from rockledge.serve.safety.refusal import header_values, refuse

OPEN = frozenset({"/health", "/health/live", "/health/ready", *ADDRESSES})
"""Addresses that need no key: they say no more than whether the server works, or are files of the console."""

log = logging.getLogger(__name__)


def client_of(request: Request) -> str:
    """Whose share of the machine a request takes: its key's name, or the address where there are no keys."""
    key: Key | None = getattr(request.state, "key", None)
    if key is not None:
        return key.name
    return "" if request.client is None else request.client.host


class Authentication:
    """Lets requests through that have a key with room in its limits. A key comes as `Authorization: Bearer`,
    or as `x-api-key`, the way of Anthropic's clients."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys
        self._throttled = LogThrottle(log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or (scope["path"] in OPEN and scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
            return
        keys = self._keys
        keys.renew()
        given = _given(scope)
        key = keys.find(given)
        if key is None:
            client = scope.get("client") or ("",)
            self._throttled.info("a request from %s had no valid key and was refused", client[0])
            what = (
                "the API key of this request is not one of this server" if given else "an API key is needed"
            )
            await refuse(unknown_key(what), scope, receive, send)
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                left = [(n.lower().encode(), v.encode()) for n, v in keys.headers(key).items()]
                message = {**message, "headers": [*message.get("headers", []), *left]}
            await send(message)

        scope.setdefault("state", {})["key"] = key
        if scope["method"] != "POST":
            await self._app(scope, receive, sending)
            return
        try:
            keys.begin(key)
        except ApiError as error:
            await refuse(error, scope, receive, sending)
            return
        try:
            await self._app(scope, receive, sending)
        finally:
            keys.end(key)


def _given(scope: Scope) -> str:
    """The key of a request; empty for none, or for several that differ."""
    found = set(header_values(scope, b"x-api-key"))
    for value in header_values(scope, b"authorization"):
        scheme, _, key = value.partition(" ")
        found.add(key.strip() if scheme.lower() == "bearer" else "")
    return found.pop() if len(found) == 1 else ""
