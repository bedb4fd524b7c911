"""`/v1/embeddings`: texts or token ids in, embeddings out, as OpenAI and vLLM have it
(https://platform.openai.com/docs/api-reference/embeddings)."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import numpy as np

from rockledge.serve.embedding import EmbeddingWork
from rockledge.serve.errors import ApiError
from rockledge.serve.options import MAX_TOKENS, MOST_PRIORITY
from rockledge.serve.schema import Reading, Schema, number, one_of, read_body, text, whole, wrong
from rockledge.serve.served_model import ServedModel
from rockledge.serve.texts_or_ids import TextOrIds, texts_or_ids

WHOLE_CONTEXT = -1
"""Of `truncate_prompt_tokens`: as many as the context holds (vLLM)."""


class EmbeddingBody(Schema):
    """The body of `/v1/embeddings`; `truncate_prompt_tokens`, `priority` and `timeout` are vLLM's."""

    model: Annotated[str | None, text()] = None
    input: Annotated[tuple[TextOrIds, ...], texts_or_ids("inputs")]
    encoding_format: Annotated[str, one_of("float", "base64")] = "float"
    dimensions: Annotated[int | None, whole(1, MAX_TOKENS)] = None
    truncate_prompt_tokens: Annotated[int | None, whole(1, MAX_TOKENS, WHOLE_CONTEXT)] = None
    priority: Annotated[int, whole(-MOST_PRIORITY, MOST_PRIORITY)] = 0
    timeout: Annotated[float, number(0.0)] = 0.0


def embedding_work(model: ServedModel, body: object, reading: Reading) -> EmbeddingWork:
    """What a body asks for.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(EmbeddingBody, body, reading)
    most = found.truncate_prompt_tokens
    if most is not None and most > model.context:
        raise wrong("truncate_prompt_tokens", f"at most {model.context}, the model's context")
    model.require_dimensions(found.dimensions)
    several = len(found.input) > 1
    inputs = tuple(
        _input_ids(model, given, f"input[{i}]" if several else "input", most)
        for i, given in enumerate(found.input)
    )

    def reply(embeddings: list[list[float]], tokens: int) -> dict[str, Any]:
        return embedding_list(found.model or model.name, embeddings, tokens, found.encoding_format)

    return EmbeddingWork(model, inputs, reply, found.dimensions, found.priority, found.timeout or None)


def embedding_list(
    model: str, embeddings: list[list[float]], tokens: int, encoding: str = "float"
) -> dict[str, Any]:
    """OpenAI's list of embeddings; "base64": of their little-endian fp32 numbers."""
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(one) if encoding == "base64" else one}
        for i, one in enumerate(embeddings)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _base64(embedding: list[float]) -> str:
    return base64.b64encode(np.asarray(embedding, "<f4").tobytes()).decode()


def _input_ids(model: ServedModel, given: TextOrIds, name: str, most: int | None) -> tuple[int, ...]:
    if given == "":
        raise wrong(name, "text that is not empty")
    if isinstance(given, str):
        return model.encode_whole(given, name, most)
    wrong_id = next((i for i in given if not 0 <= i < model.vocab), None)
    if wrong_id is not None:
        raise ApiError(f"token id {wrong_id} is not in the vocabulary (0 to {model.vocab - 1})", param=name)
    return model.fit_whole(given, name, most)
