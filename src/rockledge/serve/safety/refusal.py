"""An error object as a whole answer, for what is refused before any route is asked."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from rockledge.serve.errors import ApiError
from rockledge.serve.style import style_of


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request with `error`, as the API does that it is for."""
    body = style_of(scope["path"]).failure(error)
    await JSONResponse(body, status_code=error.status, headers=error.headers)(scope, receive, send)


def header_values(scope: Scope, name: bytes) -> list[str]:
    """All values of a request's header (`name` in lower case), in the order they came."""
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]
