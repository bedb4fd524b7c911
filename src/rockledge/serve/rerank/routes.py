"""`/v1/rerank`: documents by how well they fit a query, as Cohere, Jina and vLLM have it
(https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc, and vLLM's documentation of "Re-rank
API")."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

from rockledge.serve.api import Api
from rockledge.serve.delivery import reply_head
from rockledge.serve.embedding import EmbeddingWork
from rockledge.serve.gathering import GatheredWork
from rockledge.serve.options import MAX_TOKENS, MOST_PRIORITY
from rockledge.serve.rerank.ranking import RankWork, reranker_prompts
from rockledge.serve.schema import (
    Field,
    Reading,
    Schema,
    expected,
    flag,
    number,
    read_body,
    text,
    valid_text,
    whole,
    wrong,
)
from rockledge.serve.served_model import ServedModel
from rockledge.serve.texts_or_ids import MOST_TEXTS

ALL = 0
"""Of `top_n`: all documents (vLLM)."""


def _documents(value: Any, reading: Reading) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) < MOST_TEXTS:
        raise expected(f"a list of 1 to {MOST_TEXTS - 1} documents")
    return tuple(_text(item) for item in value)


def _text(value: Any) -> str:
    """A string, or an object with one."""
    if isinstance(value, dict) and set(value) == {"text"}:
        value = value["text"]
    if not isinstance(value, str):
        raise expected("made of strings, or of objects that have a 'text' and nothing else")
    return valid_text(value)


def _rank_fields(value: Any, reading: Reading) -> list[str]:
    if value != ["text"]:
        raise expected('["text"], the only field of a document that is read')
    return ["text"]


_DOCUMENT = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    ]
}
DOCUMENTS = Field(
    _documents, {"type": "array", "items": _DOCUMENT, "minItems": 1, "maxItems": MOST_TEXTS - 1}
)
RANK_FIELDS = Field(_rank_fields, {"type": "array", "items": {"type": "string", "enum": ["text"]}})


class RerankBody(Schema):
    """The body of `/v1/rerank`. `max_tokens_per_doc` is Cohere's, `truncate_prompt_tokens` vLLM's."""

    model: Annotated[str | None, text()] = None
    query: Annotated[str, text()]
    documents: Annotated[tuple[str, ...], DOCUMENTS]
    top_n: Annotated[int, whole(ALL, MAX_TOKENS)] = ALL
    return_documents: Annotated[bool, flag()] = True
    rank_fields: Annotated[list[str] | None, RANK_FIELDS] = None
    max_tokens_per_doc: Annotated[int | None, whole(1, MAX_TOKENS)] = None
    truncate_prompt_tokens: Annotated[int | None, whole(1, MAX_TOKENS, -1)] = None
    priority: Annotated[int, whole(-MOST_PRIORITY, MOST_PRIORITY)] = 0
    timeout: Annotated[float, number(0.0)] = 0.0


def add_rerank(app: FastAPI, api: Api) -> None:
    """The two addresses."""

    @app.post("/v1/rerank", openapi_extra=api.takes(RerankBody))
    async def rerank(request: Request) -> Response:
        return await api.gather(request, rerank_work, ServedModel.require_ranks)

    @app.post("/rerank", openapi_extra=api.takes(RerankBody))
    async def rerank_of_vllm(request: Request) -> Response:
        return await api.gather(request, rerank_work, ServedModel.require_ranks)


def rerank_work(model: ServedModel, body: object, reading: Reading) -> GatheredWork:
    """What a body asks for: of a reranker its scores, of a model that makes embeddings the cosines.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(RerankBody, body, reading)
    if not found.query:
        raise wrong("query", "text that is not empty")
    if model.reranker is None:
        return _cosines(model, found)
    prompts = reranker_prompts(
        model,
        model.reranker,
        found.query,
        found.documents,
        document_tokens=found.max_tokens_per_doc,
        most=found.truncate_prompt_tokens,
    )
    return RankWork(
        model,
        model.reranker,
        prompts,
        partial(ranking, model, found),
        priority=found.priority,
        timeout_s=found.timeout or None,
    )


def _cosines(model: ServedModel, found: RerankBody) -> EmbeddingWork:
    """The embeddings of the query and of the documents, each after the words that the model was trained to
    see in front of such a text. A document's score is its cosine with the query."""
    facts, most = model.embedding, found.truncate_prompt_tokens
    query = model.encode_whole(facts.query + found.query, "query", most)
    of_document = most if found.max_tokens_per_doc is None else found.max_tokens_per_doc
    documents = (
        model.encode_whole(facts.document + document, f"documents[{i}]", of_document)
        for i, document in enumerate(found.documents)
    )

    def reply(embeddings: list[list[float]], tokens: int) -> dict[str, Any]:
        scores = np.asarray(embeddings[1:], np.float64) @ np.asarray(embeddings[0], np.float64)
        # Lengths of embeddings are 1 only up to rounding.
        return ranking(model, found, np.clip(scores, -1, 1).tolist(), tokens)

    return EmbeddingWork(
        model,
        (query, *documents),
        reply,
        priority=found.priority,
        timeout_s=found.timeout or None,
    )


def ranking(model: ServedModel, body: RerankBody, scores: list[float], tokens: int) -> dict[str, Any]:
    """The answer: documents by falling score, equal ones in the order of the request."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if body.return_documents:
        results = [{**result, "document": {"text": body.documents[result["index"]]}} for result in results]
    return {
        "id": reply_head("rerank", "", model.name)["id"],
        "object": "list",
        "model": body.model or model.name,
        "results": results[: body.top_n or None],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
