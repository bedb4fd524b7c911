"""What a call asks of a model that makes embeddings, and the embeddings that come of it.

Every input is a request of its own; they run at once, beside those of other calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import to_json

from rockledge.runtime.embedding import Float32, unit_embedding
from rockledge.runtime.request import Request
from rockledge.serve.errors import ApiError
from rockledge.serve.front import Call, Front
from rockledge.serve.generation import error_of
from rockledge.serve.served_model import ServedModel

_NONE: Float32 = np.empty(0, np.float32)


@dataclass(frozen=True)
class EmbeddingWork:
    """`inputs`: token ids of whole texts, at least one; `reply` makes the body of the answer of their
    embeddings, each of length 1, in order, and the number of tokens read; it is called in a thread.
    `dimensions`: how many numbers of each are kept, None for all. `priority` and `timeout_s` as in
    `Options`; `keep_alive_s`: how long the model stays loaded afterwards, as for `Models.acquire`."""

    model: ServedModel
    inputs: tuple[tuple[int, ...], ...]
    reply: Callable[[list[list[float]], int], dict[str, Any]]
    dimensions: int | None = None
    priority: int = 0
    timeout_s: float | None = None
    keep_alive_s: float | None = None

    def body(self, embeddings: Sequence[Float32]) -> bytes:
        """The body of the answer, as JSON."""
        lists = [embedding.tolist() for embedding in embeddings]
        return _json(self.reply(lists, sum(map(len, self.inputs))))


def open_embeddings(front: Front, work: EmbeddingWork, client: str) -> Call:
    """Submits all inputs. Close the call at the end in any case.

    Raises:
        ApiError: as `Front.open`.
    """
    return front.open(
        [
            Request(
                id="",
                prompt=ids,
                kind="embed",
                client=client,
                priority=-work.priority,
                deadline_s=work.timeout_s,
            )
            for ids in work.inputs
        ]
    )


async def collect_embeddings(front: Front, call: Call, dimensions: int | None = None) -> list[Float32]:
    """The embeddings in the order of the inputs, each fp32 [hidden], or [dimensions].

    Raises:
        ApiError: what ended the first of the requests that failed.
    """
    found = [_NONE] * len(call.requests)
    async for place, output in call.outputs():
        if output.failure is not None:
            raise error_of(output.failure, front.draining.is_set())
        if not output.embedding:
            raise ApiError("the request was cancelled", status=500)
        found[place] = unit_embedding(output.embedding, dimensions)
    return found


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
