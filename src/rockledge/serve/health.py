"""Whether the server lives, and whether it can answer: for people, load balancers and supervisors."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from rockledge.serve.errors import ApiError
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.place import Place

PROBES = ["GET", "HEAD"]
FAILED: dict[int | str, dict[str, Any]] = {
    503: {"description": "it cannot", "content": {"application/json": {"schema": {"type": "object"}}}}
}
"""What the API's document says of the other answer."""


def add_health(app: FastAPI, models: Models) -> None:
    """The addresses of health.

    `/health/live` fails when only a restart helps, `/health/ready` while requests that name no model cannot
    be answered; `/health` says more, of all models.
    """

    @app.api_route("/health", methods=PROBES, responses=FAILED)
    async def health() -> Response:
        await asyncio.gather(*(place.engine.front.refresh() for place in models.places if place.engine))
        found = models.trouble
        each = {place.name: _of_model(place) for place in models.places}
        first = {"model": models.places[0].name, **each[models.places[0].name]}
        body = {
            "status": "ok" if found is None else "failed",
            **first,
            "requests": sum(place.requests for place in models.places),
            "message": None if found is None else found.message,
            "models": each,
        }
        return JSONResponse(body, status_code=200 if found is None else 503)

    @app.api_route("/health/ready", methods=PROBES, responses=FAILED)
    async def ready() -> Response:
        return _said(models.trouble)

    @app.api_route("/health/live", methods=PROBES, responses=FAILED)
    async def live() -> Response:
        return _said(models.lost)


def _of_model(place: Place) -> dict[str, Any]:
    engine, trouble = place.engine, place.trouble
    npu = None if engine is None else engine.front.stats.npu
    governor = None if engine is None else engine.governor()
    streaming = None if engine is None else engine.front.stats.streaming
    return {
        "state": place.state,
        "requests": place.requests,
        "integrity": "unchecked" if engine is None else engine.integrity.state,
        "npu": None if npu is None else npu.body(),
        "governor": None if governor is None else governor.body(),
        "streaming": None if streaming is None else streaming.body(),
        "message": None if trouble is None else trouble.message,
    }


def _said(trouble: ApiError | None) -> Response:
    body = {
        "status": "ok" if trouble is None else "failed",
        "message": None if trouble is None else trouble.message,
    }
    return JSONResponse(body, status_code=200 if trouble is None else 503)
