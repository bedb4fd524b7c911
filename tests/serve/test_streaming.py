"""A server whose weights are read from the disk, and a disk that fails."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.runtime.streaming.models import budget_for, made
from tests.runtime.streaming.readers import FailingReader

from rockledge.runtime.engine import Engine
from rockledge.runtime.service import MOST_FAILURES
from rockledge.serve import front

BODY = {"prompt": "Hi there", "max_tokens": 6, "temperature": 0}


def test_a_disk_that_fails_costs_the_requests_that_run_and_the_next_ones_try_again(
    serving: Callable[..., str], tmp_path: Path
) -> None:
    path = made(tmp_path / "model")
    reader = FailingReader(path)
    options: dict[str, Any] = {"threads": 1, "ctx": 200, "parallel": 2}
    with (
        Engine.load(path, memory_budget=budget_for(path, 0.2), read=reader, **options) as engine,
        httpx.Client(base_url=serving(engine), timeout=30) as http,
    ):

        def ask(_: int = 0) -> httpx.Response:
            return http.post("/v1/completions", json=BODY)

        def streamed() -> str:
            return http.post("/v1/completions", json={**BODY, "stream": True}).text

        answer = ask().json()["choices"][0]["text"]
        for _ in range(MOST_FAILURES + 1):
            reader.good = 0
            with ThreadPoolExecutor(2) as clients:
                failed = list(clients.map(ask, range(2)))
            assert [one.status_code for one in failed] == [503, 503]
            for one in failed:
                error = one.json()["error"]
                assert error["code"] == "disk_failed"
                assert "cannot be read (input/output error); check the disk" in error["message"]
            assert "disk_failed" in streamed()
            assert http.get("/health").status_code == 200
            assert http.get("/health/live").status_code == 200
        reader.good = float("inf")
        assert ask().json()["choices"][0]["text"] == answer
        assert "rockledge_streaming_waited_seconds_total" in http.get("/metrics").text  # and is up to date
        streaming = http.get("/health").json()["streaming"]
        assert streaming["bytes_read"] > streaming["streamed"] > 0


def test_health_is_up_to_date_when_it_is_asked_for_the_first_time_in_a_while(
    serving: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "STATS_SECONDS", 0.0)
    path = made(tmp_path / "model")
    with (
        Engine.load(path, memory_budget=budget_for(path, 0.2), threads=1, ctx=200, parallel=2) as engine,
        httpx.Client(base_url=serving(engine), timeout=30) as http,
    ):
        assert http.get("/health").json()["streaming"]["bytes_read"] == 0
        http.post("/v1/completions", json=BODY).raise_for_status()
        assert http.get("/health").json()["streaming"]["bytes_read"] > 0
