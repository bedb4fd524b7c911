"""The document of the API at `/openapi.json`, from the schemas that requests are read with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rockledge.serve.schema import Schema
from rockledge.serve.style import Style, style_of

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}

_ANTHROPIC_ERROR = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            "required": ["type", "message"],
        },
        "request_id": {"type": "string"},
    },
    "required": ["type", "error", "request_id"],
}

_OLLAMA_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}

# Shapes of failures, by the names that styles have for them.
_ERRORS = {"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR, "OllamaError": _OLLAMA_ERROR}

# What may come instead of an answer, by status.
FAILURES = {
    400: "a field is wrong, or the prompt does not fit in the context",
    404: "the model is not served here",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "the body has a content encoding",
    500: "the server failed",
    503: "the server is busy, ending, or cannot answer any more",
    504: "the answer did not begin in time",
}


def takes(*schemas: type[Schema], stream: bool = False) -> dict[str, Any]:
    """What the document says of a route whose body is one of `schemas` (FastAPI's `openapi_extra`); how
    failures and streams look there is the style's of its address."""
    bodies = [{"$ref": f"#/components/schemas/{schema.__name__}"} for schema in schemas]
    body = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
    answer: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if stream:
        answer["stream"] = {"schema": {"type": "string"}}
    failures = {str(status): {"description": why} for status, why in FAILURES.items()}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "the answer", "content": answer}, **failures},
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
            _dress(operation["responses"], style_of(path))
    return document


def _dress(answers: dict[str, Any], style: Style) -> None:
    """Says how failures and streams look."""
    failure = {"application/json": {"schema": {"$ref": f"#/components/schemas/{style.error}"}}}
    for status, answer in answers.items():
        if status in map(str, FAILURES):
            answer["content"] = failure
        elif "stream" in answer.get("content", {}):
            answer["content"][style.media_type] = answer["content"].pop("stream")
