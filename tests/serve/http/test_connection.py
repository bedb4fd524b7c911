"""Connections: how many, how long a silent one lasts, and how soon small packets leave."""

import json
import logging
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from tests.serve.http.test_intake import all_of, connect
from tests.serve.test_app import HELLO, until

from rockledge.serve.limits import Limits

HURRIED = Limits(connections=4, header_s=0.4, keep_alive_s=1, write_s=0.3)
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server(new_server: Callable[..., Any], engine: Any) -> Any:
    made = new_server(engine, limits=HURRIED, context=100_000)
    yield made
    engine.pace = 0.0
    made.close()


def test_a_silent_connection_is_closed_and_said_once(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    silent = [connect(server.url) for _ in range(3)]
    silent[1].sendall(b"GET /health HT")
    start = time.monotonic()
    for client in silent:
        with client:
            assert client.recv(10) == b""
    assert time.monotonic() - start < 3
    assert caplog.text.count("sent no whole request for 0.4 s and was closed") == 1


def test_the_second_request_of_a_connection_has_to_come_too(server: Any) -> None:
    with connect(server.url) as client:
        client.sendall(GET)
        answer = b""
        while not answer.endswith(b"}"):
            answer += client.recv(2000)
        assert answer.startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /he")
        assert client.recv(10) == b""


def test_a_working_connection_is_not_silent(server: Any, engine: Any) -> None:
    engine.pace = 0.1
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=HELLO, timeout=20)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello, world"


def test_connections_without_a_request_make_room(server: Any) -> None:
    silent = [connect(server.url) for _ in range(4)]
    with connect(server.url) as fifth:  # all are too new to be closed for it
        fifth.sendall(GET)
        answer = all_of(fifth)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "server_busy"
    for client in silent:
        client.close()


def test_idle_connections_give_way_to_new_ones(new_server: Callable[..., Any], engine: Any) -> None:
    made = new_server(engine, limits=Limits(connections=4))
    silent = [connect(made.url) for _ in range(4)]
    time.sleep(1.1)
    assert httpx.get(f"{made.url}/health").status_code == 200
    assert silent[0].recv(10) == b""
    for client in silent:
        client.close()
    made.close()


def test_requests_at_work_do_not_give_way(server: Any, engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine.pace = 0.1
    body = json.dumps({**HELLO, "stream": True}).encode()
    post = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    working = [connect(server.url) for _ in range(4)]
    for client in working:
        client.sendall(post)
    until(lambda: len(server.front) == 4)
    with connect(server.url) as refused:
        refused.sendall(GET.replace(GET.split()[1], b"/v1/messages?beta=true", 1))
        told = all_of(refused)
        assert told.startswith(b"HTTP/1.1 503")
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["type"] == "overloaded_error"
    for _ in range(30):
        with connect(server.url) as refused:
            refused.settimeout(2)
    with connect(server.url) as refused, suppress(ConnectionResetError):
        refused.sendall(GET)
        assert all_of(refused)[:12] in (b"HTTP/1.1 503", b"")
    for client in working:
        answer = b""
        while b"[DONE]" not in answer:
            answer += client.recv(1 << 16)
        client.close()
    assert caplog.text.count("4 connections are open") == 1


def test_a_client_that_does_not_read_is_given_up(server: Any, engine: Any) -> None:
    engine.script = "x" * 90_000
    engine.pace = 0.0
    body = json.dumps({**HELLO, "stream": True}).encode()
    post = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = server.url.removeprefix("http://").split(":")
        client.connect((host, int(port)))
        client.sendall(post)
        until(lambda: len(server.front) == 1)
        until(lambda: len(server.front) == 0, 20)
    assert engine.produced < 90_000


def test_small_answers_do_not_wait_for_acknowledgements(http: httpx.Client, engine: Any) -> None:
    engine.script = "x"
    body = {"prompt": "Hi", "max_tokens": 1}
    http.post("/v1/completions", json=body)
    times = []
    for _ in range(20):
        start = time.monotonic()
        http.post("/v1/completions", json=body)
        times.append(time.monotonic() - start)
    assert sorted(times)[len(times) // 4] < 0.035  # a delayed acknowledgement takes 40 ms


def test_few_file_descriptors_bound_the_connections_and_one_line_says_so() -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    program = [sys.executable, "-m", "tests.serve.scripted_server"]
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        silent = [connect(url) for _ in range(80)]
        time.sleep(1.5)
        assert httpx.get(f"{url}/health", timeout=20).status_code == 200
        for client in silent:
            client.close()
        process.stdin.close()
        log = process.stderr.read()
        assert process.wait(20) == 0
    assert "instead of 256, as many as `ulimit -n` (64) allows" in log
    assert "Traceback" not in log
    assert len(log.splitlines()) < 5, log
