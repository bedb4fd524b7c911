"""The application around the endpoints: models, health, error shapes, queueing, clients that leave."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rockledge.errors import ArtifactError, UsageError
from rockledge.serve.http import server
from rockledge.serve.http.server import bind
from rockledge.serve.integrity import Integrity
from rockledge.serve.limits import Limits
from rockledge.serve.residency import room

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


def test_a_405_says_what_is_allowed_and_probes_may_use_head(http: httpx.Client) -> None:
    assert http.get("/v1/chat/completions").headers["allow"] == "POST"
    assert "GET" in http.post("/health").headers["allow"]
    for path in ("/health", "/metrics"):
        response = http.head(path)
        assert (response.status_code, response.content) == (200, b"")


def test_requests_run_together(http: httpx.Client, engine: Any) -> None:
    engine.pace = 0.003
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/chat/completions", json=HELLO).json(), range(6)))
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["Hello, world"] * 6
    assert len(engine.requests) == 6
    assert engine.most_active > 1


def test_a_full_server_is_said_and_health_counts_it(serving: Callable[..., str], engine: Any) -> None:
    engine.pace = 0.2
    url = serving(engine, limits=Limits(parallel=1, waiting=1))
    with ThreadPoolExecutor(2) as pool, httpx.Client(base_url=url, timeout=20) as http:
        waiting = [pool.submit(http.post, "/v1/chat/completions", json=HELLO) for _ in range(2)]
        until(lambda: http.get("/health").json()["requests"] == 2)
        refused = http.post("/v1/chat/completions", json=HELLO)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "server_busy"
        engine.pace = 0.0
        assert [future.result().status_code for future in waiting] == [200, 200]


def test_more_tokens_than_the_server_holds_wait_outside(
    serving: Callable[..., str], engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_TOKENS", 60)
    engine.pace = 0.1
    ids = {"prompt": [72] * 40, "max_tokens": 5}
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=serving(engine), timeout=20) as http:
        first = pool.submit(http.post, "/v1/completions", json=ids)
        assert engine.started.wait(10)
        assert http.post("/v1/completions", json=ids).status_code == 503
        engine.pace = 0.0
        assert first.result().status_code == 200
        assert http.post("/v1/completions", json=ids).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_work(http: httpx.Client, engine: Any, stream: bool) -> None:
    engine.script = "x" * 40
    engine.pace = 0.05
    if stream:
        with http.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response:
            assert next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json=HELLO, timeout=0.3)
    until(lambda: engine.idle)
    assert 0 < engine.produced < 40
    engine.pace = 0.0
    assert http.post("/v1/chat/completions", json=HELLO).status_code == 200


def test_a_client_that_leaves_the_queue_is_never_worked_on(serving: Callable[..., str], engine: Any) -> None:
    engine.pace, engine.parallel = 0.1, 1
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=serving(engine), timeout=20) as http:
        first = pool.submit(http.post, "/v1/chat/completions", json=HELLO)
        assert engine.started.wait(10)
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json={"prompt": "left"}, timeout=0.2)
        until(lambda: http.get("/health").json()["requests"] == 1)
        assert first.result().status_code == 200
        assert len(engine.cancelled) == 1
        assert engine.produced == 12


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

    def verify(_: object) -> None:
        checked.wait(10)
        raise ArtifactError("tensor layers.0.attn.q.codes is damaged; copy the artifact again")

    url = serving(engine, integrity=Integrity(verify, poll_s=0.02))
    with httpx.Client(base_url=url, timeout=20) as http:
        assert http.get("/health").json()["integrity"] == "checking"
        assert http.post("/v1/chat/completions", json=HELLO).status_code == 200
        checked.set()
        until(lambda: http.get("/health").status_code == 503)
        assert "layers.0.attn.q" in http.get("/health").json()["message"]
        refused = http.post("/v1/chat/completions", json=HELLO)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "artifact_damaged"
        assert "layers.0.attn.q" in refused.json()["error"]["message"]


def test_a_sound_artifact_is_verified(serving: Callable[..., str], engine: Any) -> None:
    url = serving(engine, integrity=Integrity(lambda _: None, poll_s=0.02))
    with httpx.Client(base_url=url, timeout=20) as http:
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
            server.run_server(FastAPI(), second, Limits(), on_ready=lambda _: None, on_end=lambda: None)


def streamed(url: str, heard: threading.Event) -> str:
    """All of a streamed answer; `heard` is set with its first text."""
    text = ""
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={**HELLO, "stream": True}, timeout=20
    ) as response:
        for line in response.iter_lines():
            text += line
            if "Hel" in text or '"x"' in text:
                heard.set()
            if '"H"' in line:
                heard.set()
    return text


def test_at_the_end_running_answers_finish_and_waiting_ones_are_told(
    new_server: Callable[..., Any], engine: Any
) -> None:
    engine.pace, engine.parallel = 0.05, 1
    running = new_server(engine, limits=Limits(grace_s=10))
    heard = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(streamed, running.url, heard)
        assert heard.wait(10)
        waiting = pool.submit(httpx.post, f"{running.url}/v1/chat/completions", json=HELLO, timeout=20)
        until(lambda: len(running.front) == 2)
        start = time.monotonic()
        running.server.should_exit = True
        refused = waiting.result()
        assert time.monotonic() - start < 5
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_busy")
        assert refused.headers["retry-after"]
        assert first.result().endswith("data: [DONE]")
        running.close()


def test_an_answer_longer_than_the_grace_ends_with_an_error(
    new_server: Callable[..., Any], engine: Any
) -> None:
    engine.script, engine.pace = "x" * 600, 0.02
    running = new_server(engine, context=1000, limits=Limits(grace_s=0.2))
    heard = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(streamed, running.url, heard)
        assert heard.wait(10)
        whole = pool.submit(httpx.post, f"{running.url}/v1/chat/completions", json=HELLO, timeout=30)
        until(lambda: len(engine.open) == 2 and engine.open[1].done > 0)
        start = time.monotonic()
        running.close()
        assert time.monotonic() - start < 5
        assert json.loads(stream.result().rpartition("data: ")[2])["error"]["type"] == "server_error"
        assert whole.result().status_code == 503
    assert engine.produced < 600


def test_an_upload_does_not_keep_the_server_from_ending(
    new_server: Callable[..., Any], engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    running = new_server(engine, limits=Limits(grace_s=0))
    with socket.create_connection(running.url.removeprefix("http://").split(":")) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        until(lambda: bool(running.server.server_state.tasks))
        running.close()
        assert b"503" in client.recv(1000)
    assert "Traceback" not in caplog.text


def test_a_step_that_fails_is_a_500_and_the_server_goes_on(http: httpx.Client, engine: Any) -> None:
    engine.failure = RuntimeError("of the script")
    assert http.post("/v1/chat/completions", json=HELLO).status_code == 500
    engine.failure = None
    assert http.post("/v1/chat/completions", json=HELLO).status_code == 200
    assert http.get("/health").status_code == 200


def test_an_engine_that_cannot_go_on_ends_readiness(serving: Callable[..., str], engine: Any) -> None:
    engine.failure = ArtifactError("tensor embed.codes is damaged; copy the artifact again")
    with httpx.Client(base_url=serving(engine), timeout=20) as http:
        assert http.post("/v1/chat/completions", json=HELLO).status_code == 503
        until(lambda: http.get("/health").status_code == 503)
        assert "embed.codes" in http.get("/health").json()["message"]
        assert "embed.codes" in http.post("/v1/chat/completions", json=HELLO).json()["error"]["message"]


@pytest.mark.parametrize(
    "body", [b'{"\\ud800": 1, "prompt": "a"}', b'{"prompt": "a", "stop": {"\\udc00": "x"}}']
)
def test_half_a_surrogate_pair_in_a_name_is_the_clients_mistake(http: httpx.Client, body: bytes) -> None:
    response = http.post("/v1/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_slash_at_the_end_is_another_address(http: httpx.Client) -> None:
    """A redirect would name the server as it sees itself, with http even behind a proxy with TLS."""
    answer = http.post("/v1/chat/completions/", json={"messages": [{"role": "user", "content": "Hi"}]})
    assert answer.status_code == 404
    assert "location" not in answer.headers
