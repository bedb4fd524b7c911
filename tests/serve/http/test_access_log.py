"""What the logs say of requests: nothing of what they hold."""

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

SECRET = "the-secret-of-the-prompt"


def test_prompts_answers_and_queries_stay_out_of_the_logs(
    serving: Callable[..., str], engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "rockledge"), caplog.at_level(logging.DEBUG, "uvicorn"):
        url = serving(engine, context=256)
        engine.script = f"An answer with {SECRET}"
        for body in (
            {"prompt": SECRET},
            {"prompt": SECRET, "stream": True},
            {"prompt": SECRET, SECRET: 1},
            {"prompt": SECRET * 1000},
            [SECRET],
        ):
            httpx.post(f"{url}/v1/completions?api_key={SECRET}", json=body)
        httpx.post(f"{url}/v1/completions", content=f'"{SECRET}', headers={"X-Api-Key": SECRET})
        engine.failure = RuntimeError("broken")
        assert httpx.post(f"{url}/v1/completions", json={"prompt": SECRET}).status_code == 500
    assert "POST /v1/completions HTTP" in caplog.text
    assert SECRET not in caplog.text


def test_what_the_console_asks_all_the_time_is_not_logged(
    serving: Callable[..., str], engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "uvicorn"):
        url = serving(engine, sheets=[])
        assert httpx.get(f"{url}/console/state").status_code == 200
        assert httpx.post(f"{url}/console/state", json={}).status_code == 405
        assert httpx.get(f"{url}/console/models").status_code == 200
    assert "GET /console/state" not in caplog.text
    assert "POST /console/state" in caplog.text
    assert "GET /console/models" in caplog.text
