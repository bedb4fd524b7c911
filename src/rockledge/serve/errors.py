"""The one shape of a failed answer: OpenAI's error object with its HTTP status."""

from __future__ import annotations

from typing import Any

from rockledge.runtime.service import SHUTTING_DOWN

RETRY_AFTER_SECONDS = 1


class ApiError(Exception):
    """A request that gets an error object instead of an answer.

    `param` names the request field at fault, `code` is the machine-readable reason (both as OpenAI has them).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        param = None if self.param is None else printable(self.param)
        return {
            "error": {"message": printable(self.message), "type": kind, "param": param, "code": self.code}
        }


def printable(text: str) -> str:
    """`text` without what UTF-8 cannot hold: halves of surrogate pairs, which JSON can carry."""
    return text.encode(errors="backslashreplace").decode()


def server_busy(message: str) -> ApiError:
    """503 for a request that may be sent again."""
    return ApiError(
        message, status=503, code="server_busy", headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
    )


def shutting_down() -> ApiError:
    """503 of a server that is about to end."""
    return server_busy(SHUTTING_DOWN)


class PromptTooLongError(ApiError):
    """A prompt of `length` tokens (`least`: or more) where `most` would fit."""

    def __init__(self, message: str, *, param: str, length: int, most: int, least: bool) -> None:
        super().__init__(message, param=param, code="context_length_exceeded")
        self.length = length
        self.most = most
        self.least = least


def context_length_exceeded(
    length: int, context: int, param: str, *, least: bool = False
) -> PromptTooLongError:
    """A prompt of `length` tokens (`least`: or more) that does not fit in a context of `context`.

    The sentence is OpenAI's: LiteLLM and others know by its words that the prompt must be cut
    (litellm/litellm_core_utils/exception_mapping_utils.py).
    """
    what = "messages" if param == "messages" else "prompt"
    if length == context:
        found = f"you requested {length + 1} tokens ({length} in the {what}, 1 in the completion)"
    else:
        found = f"your {what} resulted in {'at least ' * least}{length} tokens"
    return PromptTooLongError(
        f"This model's maximum context length is {context} tokens. However, {found}. "
        f"Please reduce the length of the {what}.",
        param=param,
        length=length,
        most=context - 1,
        least=least,
    )
