"""Requests whose end can be read in two ways are refused: the beginning of request smuggling.

With both lengths a proxy before this server may take one for true and this server the other; what one of them
takes for the rest of a body is the next request for the other (RFC 9112, section 6.3).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rockledge.serve.errors import ApiError
from rockledge.serve.safety.refusal import header_values, refuse


class OneLength:
    """Lets requests through that have a Content-Length or a Transfer-Encoding, or neither."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if (
            scope["type"] == "http"
            and header_values(scope, b"content-length")
            and header_values(scope, b"transfer-encoding")
        ):
            error = ApiError(
                "the request has a Content-Length and a Transfer-Encoding, expected one of them",
                headers={"Connection": "close"},
            )
            await refuse(error, scope, receive, send)
            return
        await self._app(scope, receive, send)
