"""Whether the server lives, and whether it can answer: for people, load balancers and supervisors."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from rockledge.serve.errors import ApiError, shutting_down
from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity

PROBES = ["GET", "HEAD"]


def add_health(app: FastAPI, front: Front, whole: Integrity, model: str) -> None:
    """The addresses of health.

    `/health/live` fails when only a restart helps, `/health/ready` while nothing can be answered; `/health`
    says more.
    """

    def trouble() -> ApiError | None:
        return whole.trouble or front.failure or (shutting_down() if front.draining.is_set() else None)

    @app.api_route("/health", methods=PROBES)
    async def health() -> Response:
        front.refresh()
        found = trouble()
        body = {
            "status": "ok" if found is None else "failed",
            "model": model,
            "requests": len(front),
            "integrity": whole.state,
            "message": None if found is None else found.message,
            "npu": None if front.stats.npu is None else front.stats.npu.body(),
        }
        return JSONResponse(body, status_code=200 if found is None else 503)

    @app.api_route("/health/ready", methods=PROBES)
    async def ready() -> Response:
        return _said(trouble())

    @app.api_route("/health/live", methods=PROBES)
    async def live() -> Response:
        failed = front.failure is not None and front.failure.code == "engine_failed"
        return _said(front.failure if failed else None)


def _said(trouble: ApiError | None) -> Response:
    body = {
        "status": "ok" if trouble is None else "failed",
        "message": None if trouble is None else trouble.message,
    }
    return JSONResponse(body, status_code=200 if trouble is None else 503)
