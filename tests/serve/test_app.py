"""The application around the endpoints: models, health, error shapes, queueing, clients that leave."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from rockledge.errors import ArtifactError, UsageError
from rockledge.serve import server
from rockledge.serve.app import create_app
from rockledge.serve.server import bind

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_one_model_is_listed_and_described(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["object"]) == ("scripted", "model")
    assert http.get("/v1/models/scripted").json() == model


def test_another_model_is_not_found(http: httpx.Client) -> None:
    asked = http.post("/v1/chat/completions", json={"model": "gpt-4", **HELLO})
    named = http.get("/v1/models/gpt-4")
    for response in (asked, named):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
        assert "scripted" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "content, status",
    [
        (b"{", 400),
        (b"", 400),
        (b"[1]", 400),
        (b"[" * 100_000, 400),
        (b'"\xff"', 400),
        (b" " * (33 << 20), 413),
    ],
    ids=["cut", "empty", "list", "deep", "not utf-8", "huge"],
)
def test_a_broken_body_is_the_clients_mistake(http: httpx.Client, content: bytes, status: int) -> None:
    response = http.post("/v1/completions", content=content)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_unknown_addresses_and_methods_have_the_same_error_shape(http: httpx.Client) -> None:
    for response, status in ((http.get("/v1/nothing"), 404), (http.get("/v1/chat/completions"), 405)):
        assert response.status_code == status
        assert response.json()["error"]["message"]


def test_requests_wait_for_each_other(http: httpx.Client, engine: Any) -> None:
    engine.pace = 0.003
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/chat/completions", json=HELLO).json(), range(6)))
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["Hello, world"] * 6
    assert len(engine.requests) == 6
    assert engine.most_active == 1


def test_a_full_queue_is_said_and_health_counts_it(serving: Callable[..., str], engine: Any) -> None:
    engine.pace = 0.2
    url = serving(engine, queue_limit=2)
    with ThreadPoolExecutor(2) as pool, httpx.Client(base_url=url, timeout=20) as http:
        waiting = [pool.submit(http.post, "/v1/chat/completions", json=HELLO) for _ in range(2)]
        until(lambda: http.get("/health").json()["requests"] == 2)
        refused = http.post("/v1/chat/completions", json=HELLO)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        engine.pace = 0.0
        assert [future.result().status_code for future in waiting] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_work(http: httpx.Client, engine: Any, stream: bool) -> None:
    engine.script = "x" * 60
    engine.context = 1000
    engine.pace = 0.05
    if stream:
        with http.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
            assert next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json=HELLO, timeout=0.3)
    assert engine.finished.wait(10)
    assert 0 < engine.produced < 60
    engine.pace = 0.0
    assert http.post("/v1/chat/completions", json=HELLO).status_code == 200


def test_a_client_that_leaves_the_queue_is_never_worked_on(http: httpx.Client, engine: Any) -> None:
    engine.pace = 0.1
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(http.post, "/v1/chat/completions", json=HELLO)
        assert engine.started.wait(10)
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json={"prompt": "left"}, timeout=0.2)
        until(lambda: http.get("/health").json()["requests"] == 1)
        assert first.result().status_code == 200
    http.post("/v1/completions", json={"prompt": "last"})
    assert [bytes(asked["prompt"][1:]) for asked in engine.requests[1:]] == [b"last"]


def test_a_stream_arrives_while_it_is_made(http: httpx.Client, engine: Any) -> None:
    engine.pace = 0.05
    arrivals = []
    with http.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                arrivals.append(time.monotonic())
    assert len(arrivals) == 12
    assert arrivals[-1] - arrivals[0] > 0.25


def test_damage_found_in_the_background_ends_readiness(serving: Callable[..., str], engine: Any) -> None:
    checked = threading.Event()

    def verify() -> None:
        checked.wait(10)
        raise ArtifactError("tensor layers.0.attn.q.codes is damaged; copy the artifact again")

    with httpx.Client(base_url=serving(engine, verify=verify), timeout=20) as http:
        assert http.get("/health").json()["integrity"] == "checking"
        assert http.post("/v1/chat/completions", json=HELLO).status_code == 200
        checked.set()
        until(lambda: http.get("/health").status_code == 503)
        assert "layers.0.attn.q" in http.get("/health").json()["message"]
        refused = http.post("/v1/chat/completions", json=HELLO)
        assert refused.status_code == 503
        assert "layers.0.attn.q" in refused.json()["error"]["message"]


def test_a_sound_artifact_is_verified(serving: Callable[..., str], engine: Any) -> None:
    with httpx.Client(base_url=serving(engine, verify=lambda: None), timeout=20) as http:
        until(lambda: http.get("/health").json()["integrity"] == "verified")
        assert http.get("/health").json()["status"] == "ok"


def test_a_taken_port_is_one_sentence() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(
            UsageError, match=r"cannot listen on 127.0.0.1 port \d+ \(Address already in use\)"
        ):
            bind("127.0.0.1", taken.getsockname()[1])


def test_of_two_that_load_at_once_the_later_is_told(engine: Any) -> None:
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", first.getsockname()[1]) as second:
        first.listen()
        with pytest.raises(UsageError, match="Address already in use"):
            server.run_server(create_app(engine), second, lambda url: None)


def test_stopping_does_not_wait_for_a_long_answer(
    new_server: Callable[..., Any], engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHUTDOWN_SECONDS", 1)
    engine.script, engine.context, engine.pace = "x" * 600, 1000, 0.05
    running = new_server(engine)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(httpx.post, f"{running.url}/v1/chat/completions", json=HELLO, timeout=30)
        assert engine.started.wait(10)
        start = time.monotonic()
        running.close()
        assert time.monotonic() - start < 10
    assert engine.finished.is_set()
    assert engine.produced < 600
