"""How an API writes what it sends: the body of a failed answer, and the chunks of a streamed one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rockledge.serve.errors import ApiError, PromptTooLongError, printable


@dataclass(frozen=True)
class Style:
    """`failure`: the body of a failed answer, which is also the last chunk of one that fails midway; `chunk`:
    how a chunk is written; `end`: what follows the last one; `media_type`: of a stream; `error`: what the
    OpenAPI document calls the shape of `failure`."""

    failure: Callable[[ApiError], dict[str, Any]]
    chunk: Callable[[dict[str, Any]], str]
    end: str
    media_type: str
    error: str


def compact(value: dict[str, Any]) -> str:
    """JSON on one line. In ASCII: some readers of lines take U+2028 and the like for the end of one."""
    return json.dumps(value, separators=(",", ":"))


def server_sent(value: dict[str, Any]) -> str:
    """A server-sent event without a name."""
    return f"data: {compact(value)}\n\n"


def named_event(value: dict[str, Any]) -> str:
    """A server-sent event with the name that its `type` is."""
    return f"event: {value['type']}\n{server_sent(value)}"


def line(value: dict[str, Any]) -> str:
    """A line of NDJSON."""
    return compact(value) + "\n"


# Types of errors by status (https://docs.claude.com/en/api/errors); others are requests that are wrong.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


# What says more, by the field that is refused: with it the client's own loops go on without the field.
_ANTHROPIC_DETAILS = {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}


def _anthropic_failure(error: ApiError) -> dict[str, Any]:
    other = "invalid_request_error" if error.status < 500 else "api_error"
    message = printable(error.message)
    if isinstance(error, PromptTooLongError):
        # The words that LiteLLM and others know it by, with the numbers that some compute with.
        message = (
            f"prompt is too long: {'at least ' * error.least}{error.length} tokens > {error.most} maximum"
        )
    found: dict[str, Any] = {"type": _ANTHROPIC_TYPES.get(error.status, other), "message": message}
    if error.code == "unsupported_parameter" and error.param in _ANTHROPIC_DETAILS:
        found["details"] = _ANTHROPIC_DETAILS[error.param]
    return {"type": "error", "error": found, "request_id": f"req_{secrets.token_hex(12)}"}


def _ollama_failure(error: ApiError) -> dict[str, Any]:
    return {"error": printable(error.message)}


_EVENTS = "text/event-stream"
OPENAI = Style(ApiError.body, server_sent, "data: [DONE]\n\n", _EVENTS, "Error")
RESPONSES = Style(ApiError.body, named_event, "", _EVENTS, "Error")
ANTHROPIC = Style(_anthropic_failure, named_event, "", _EVENTS, "AnthropicError")
OLLAMA = Style(_ollama_failure, line, "", "application/x-ndjson", "OllamaError")

_STYLES = (("/v1/responses", RESPONSES), ("/v1/messages", ANTHROPIC), ("/api", OLLAMA))


def style_of(path: str) -> Style:
    """The style of the API that an address belongs to, whether there is such an address or not."""
    return next((style for root, style in _STYLES if f"{path}/".startswith(f"{root}/")), OPENAI)
