"""Bodies say that they are JSON: what browsers let a page send without asking is of other types.

The check by `Origin` is the first line; this one holds even where a browser leaves that out. Programs may
leave the type out: a browser that does so names the page's origin.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rockledge.serve.errors import ApiError
from rockledge.serve.safety.refusal import header_values, refuse

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_CHARSETS = ("utf-8", "utf8", "us-ascii")


class JsonOnly:
    """Lets bodies through that are said to be JSON in UTF-8."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] in WITH_BODY:
            given = [value for value in header_values(scope, b"content-type") if value]
            from_page = bool(header_values(scope, b"origin"))
            wrong = next((value for value in given if not _is_json(value)), None)
            if wrong is not None or (from_page and not given):
                error = ApiError(
                    f"the request body has the content type {(wrong or '')[:60]!r}, expected "
                    "application/json; name that in the header Content-Type",
                    status=415,
                    code="unsupported_media_type",
                )
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_json(content_type: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        return False
    charsets = [p.partition("=")[2].strip('" ') for p in parameters if p.partition("=")[0] == "charset"]
    return all(charset in _CHARSETS for charset in charsets)
