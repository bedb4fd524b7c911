"""The document of the API at `/openapi.json`, from the schemas that requests are read with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rockledge.serve.schema import Schema
from rockledge.serve.style import style_of


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}

# Schemas of failed answers, by the names that styles have for them.
_ERRORS = {
    "Error": _object(error=_object(message=_TEXT, type=_TEXT, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)),
    "AnthropicError": _object(
        type={"const": "error"}, error=_object(type=_TEXT, message=_TEXT), request_id=_TEXT
    ),
    "OllamaError": _object(error=_TEXT),
}

# What may come instead of an answer, by status: of every address, of those with a body, and of those with a
# name in their path.
FAILURES = {
    400: "the request is not one that this server understands",
    401: "the server asks for an API key",
    403: "the server is not called by one of its names, or a web page may not ask it",
    503: "the server is busy, ending, or cannot answer any more",
}
FAILURES_OF_BODIES = {
    400: "a field is wrong, or the prompt does not fit in the context",
    404: "the model is not served here",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "the body is not JSON, or has a content encoding",
    429: "a limit of the key is reached",
    500: "the server failed",
    504: "the answer did not begin in time",
}
FAILURES_OF_NAMES = {404: "the model is not served here"}

METRICS_ANSWER: dict[str, Any] = {
    "responses": {"200": {"content": {"application/openmetrics-text": {"schema": _TEXT}}}}
}
"""Of `/metrics`, besides plain text (FastAPI's `openapi_extra`)."""

STREAM = "stream"  # stands for the media type of streams, which follows from the address


def takes(*schemas: type[Schema], stream: bool = False) -> dict[str, Any]:
    """What the document says of a route whose body is one of `schemas` (FastAPI's `openapi_extra`); how
    failures and streams look there is the style's of its address."""
    bodies = [{"$ref": f"#/components/schemas/{schema.__name__}"} for schema in schemas]
    body = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
    answer: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if stream:
        answer[STREAM] = {}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "the answer", "content": answer}},
    }


def api_document(app: FastAPI, version: str, schemas: Sequence[type[Schema]]) -> dict[str, Any]:
    """The OpenAPI document of all routes of `app`; `schemas` are those that `takes` named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GET and HEAD of one route have one name; see below
        document = get_openapi(title=app.title, version=version, routes=app.routes)
    _, definitions = models_json_schema(
        [(schema, "validation") for schema in schemas], ref_template="#/components/schemas/{model}"
    )
    document["components"] = {"schemas": {**definitions["$defs"], **_ERRORS}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["operationId"] = f"{method} {path}"
            operation["responses"].pop("422", None)  # FastAPI's own check, which no route uses
            _add_failures(path, method, operation["responses"])
            content = operation["responses"]["200"].get("content", {})
            if STREAM in content:
                content[style_of(path).media_type] = content.pop(STREAM)
    return document


def _add_failures(path: str, method: str, responses: dict[str, Any]) -> None:
    """Adds what may come instead of an answer, where the route itself says nothing of it."""
    schema = {"$ref": f"#/components/schemas/{style_of(path).error}"}
    failure = {"application/json": {"schema": schema}}
    reasons = FAILURES | (FAILURES_OF_BODIES if method == "post" else {})
    reasons |= FAILURES_OF_NAMES if "{" in path else {}
    for status, reason in sorted(reasons.items()):
        responses.setdefault(str(status), {"description": reason, "content": failure})
