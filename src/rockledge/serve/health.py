"""Whether the server lives, and whether it can answer: for people, load balancers and supervisors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from rockledge.serve.errors import ApiError
from rockledge.serve.models import Models, Running

PROBES = ["GET", "HEAD"]


def add_health(app: FastAPI, models: Models) -> None:
    """The addresses of health.

    `/health/live` fails when only a restart helps, `/health/ready` while nothing can be answered; `/health`
    says more.
    """

    def trouble() -> ApiError | None:
        return next((one.trouble for one in models.running if one.trouble is not None), None)

    @app.api_route("/health", methods=PROBES)
    async def health() -> Response:
        found = trouble()
        body = {
            "status": "ok" if found is None else "failed",
            **_of_model(models.running[0]),
            "message": None if found is None else found.message,
        }
        return JSONResponse(body, status_code=200 if found is None else 503)

    @app.api_route("/health/ready", methods=PROBES)
    async def ready() -> Response:
        return _said(trouble())

    @app.api_route("/health/live", methods=PROBES)
    async def live() -> Response:
        failures = (one.front.failure for one in models.running)
        return _said(next((one for one in failures if one is not None and one.code == "engine_failed"), None))


def _of_model(running: Running) -> dict[str, Any]:
    front = running.front
    front.refresh()
    return {
        "model": running.model.name,
        "requests": len(front),
        "integrity": running.integrity.state,
        "npu": None if front.stats.npu is None else front.stats.npu.body(),
    }


def _said(trouble: ApiError | None) -> Response:
    body = {
        "status": "ok" if trouble is None else "failed",
        "message": None if trouble is None else trouble.message,
    }
    return JSONResponse(body, status_code=200 if trouble is None else 503)
