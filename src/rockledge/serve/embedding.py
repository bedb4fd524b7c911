"""What a call asks of a model that makes embeddings, and the answer that is made of them.

Every input is a request of its own; they run at once, beside those of other calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from rockledge.runtime.embedding import unit_embedding
from rockledge.runtime.request import Output, Request
from rockledge.serve.errors import ApiError
from rockledge.serve.served_model import ServedModel


@dataclass(frozen=True)
class EmbeddingWork:
    """`inputs`: token ids of whole texts, at least one; `reply` makes the body of the answer of their
    embeddings, each of length 1, in order, and the number of tokens read; it is called in a thread.
    `dimensions`: how many numbers of each are kept, None for all. `priority` and `timeout_s` as in
    `Options`; `keep_alive_s`: how long the model stays loaded afterwards, as for `Models.acquire`.
    `begun` is called in the event loop when the model is loaded."""

    model: ServedModel
    inputs: tuple[tuple[int, ...], ...]
    reply: Callable[[list[list[float]], int], dict[str, Any]]
    dimensions: int | None = None
    priority: int = 0
    timeout_s: float | None = None
    keep_alive_s: float | None = None
    begun: Callable[[], None] = lambda: None

    def requests(self) -> list[Request]:
        """One for each input."""
        return [
            Request("", ids, kind="embed", priority=-self.priority, deadline_s=self.timeout_s)
            for ids in self.inputs
        ]

    def body(self, outputs: Sequence[Sequence[Output]]) -> bytes:
        """The answer as JSON.

        Raises:
            ApiError: an input has no embedding.
        """
        embeddings = []
        for (output,) in outputs:
            if not output.embedding:
                raise ApiError("the request was cancelled", status=500)
            embeddings.append(unit_embedding(output.embedding, self.dimensions).tolist())
        return _json(self.reply(embeddings, sum(map(len, self.inputs))))


def _json(body: dict[str, Any]) -> bytes:
    """An object in which a list may have millions of numbers. Each of its elements is written by itself, so
    that other threads get their turn between them; by the package behind pydantic, which is several times
    faster than Python's own."""
    fields = []
    for name, value in body.items():
        if isinstance(value, list):
            elements = [to_json(element) for element in value]
            fields.append(to_json(name) + b":[" + b",".join(elements) + b"]")
        else:
            fields.append(to_json(name) + b":" + to_json(value))
    return b"{" + b",".join(fields) + b"}"
