"""How an API writes what it sends: the body of a failed answer, and the chunks of a streamed one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rockledge.serve.errors import ApiError


@dataclass(frozen=True)
class Style:
    """`failure`: the body of a failed answer, which is also the last chunk of one that fails midway; `chunk`:
    how a chunk is written; `end`: what follows the last one; `media_type`: of a stream."""

    failure: Callable[[ApiError], dict[str, Any]]
    chunk: Callable[[dict[str, Any]], str]
    end: str
    media_type: str


def server_sent(value: dict[str, Any]) -> str:
    """A server-sent event. In ASCII: some readers of lines take U+2028 and the like for the end of one."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


OPENAI = Style(ApiError.body, server_sent, "data: [DONE]\n\n", "text/event-stream")
