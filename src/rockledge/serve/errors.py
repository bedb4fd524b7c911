"""The one shape of a failed answer: OpenAI's error object with its HTTP status."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request that gets an error object instead of an answer.

    `param` names the request field at fault, `code` is the machine-readable reason (both as OpenAI has them).
    """

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def context_length_exceeded(length: int, limit: int, param: str) -> ApiError:
    """A prompt of `length` tokens where at most `limit` fit."""
    return ApiError(
        f"the prompt has {length} tokens, expected at most {limit} in this context; "
        "shorten the prompt or restart the server with a larger --ctx",
        param=param,
        code="context_length_exceeded",
    )
