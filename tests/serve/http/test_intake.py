"""How bodies come in: their bounds, their time, and that nobody else waits for them."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest
from tests.serve.scripted_engine import ScriptedEngine
from tests.serve.test_app import until

from rockledge.serve.limits import Limits, answer_tokens, body_bytes

MB = 1 << 20


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=10)
    return made


def head(length: int, *more: str) -> bytes:
    lines = ["POST /v1/completions HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def all_of(client: socket.socket) -> bytes:
    found = b""
    while part := client.recv(1 << 16):
        found += part
    return found


@pytest.fixture(scope="module")
def bounded(start_server: Callable[..., str], module_engine: Any) -> str:
    """A server that is in a hurry, for bodies of at most 200,000 bytes."""
    return start_server(
        module_engine,
        limits=Limits(body_bytes=200_000, piece_s=0.3, body_s=1.0, header_s=0.5, keep_alive_s=1),
    )


@pytest.fixture(scope="module")
def module_engine() -> Any:
    return ScriptedEngine()


def test_a_body_is_refused_by_its_length_before_it_comes(bounded: str) -> None:
    with connect(bounded) as client:
        client.sendall(head(200_001))
        answer = all_of(client)
        assert answer.startswith(b"HTTP/1.1 413")
        assert (
            b"larger than 200000 bytes; shorten it or restart the server with a larger --max-body" in answer
        )


def test_a_body_without_a_length_is_cut_off_at_the_limit(bounded: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    assert httpx.post(f"{bounded}/v1/completions", content=pieces()).status_code == 413


def test_a_compressed_body_is_not_taken(bounded: str) -> None:
    response = httpx.post(f"{bounded}/v1/completions", content=b"x", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    assert "'gzip'" in response.json()["error"]["message"]


@pytest.mark.parametrize("times, pause", [(1, 0.6), (20, 0.15)], ids=["silent", "slow"])
def test_a_body_has_to_come_in_time(bounded: str, times: int, pause: float) -> None:
    with connect(bounded) as client:
        client.sendall(head(100))
        start = time.monotonic()
        with suppress(OSError):  # the server has closed the connection
            for _ in range(times):
                time.sleep(pause)
                client.sendall(b" ")
        assert time.monotonic() - start < 2.5
        if times == 1:
            assert all_of(client).startswith(b"HTTP/1.1 408")


def test_a_client_that_leaves_during_its_upload_is_no_error(
    bounded: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with connect(bounded) as client:
        client.sendall(head(1000) + b"{")
        time.sleep(0.1)
    time.sleep(0.2)
    assert httpx.get(f"{bounded}/health").status_code == 200
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]
    assert caplog.text.count("a client left before all of its request had come") == 1


@pytest.mark.parametrize(
    "content, status",
    [
        (b'{"prompt": [' + b"[]," * 50_000 + b"[]]}", 400),
        (b"[" + b"{}," * 60_000 + b"{}]", 400),
        (b"[" * 100_001, 413),
        (b'{"prompt": "' + b"{" * 100_001 + b'"}', 413),
        (b'{"prompt": [' + b"1," * 90_000 + b"1]}", 400),
        (b'{"prompt": "' + b"," * 150_000 + b'"}', 400),
    ],
)
def test_many_values_are_read_or_refused(bounded: str, content: bytes, status: int) -> None:
    response = httpx.post(f"{bounded}/v1/completions", content=content)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_answer_and_body_limits_follow_the_context() -> None:
    assert body_bytes(4096) == 4 * MB
    assert body_bytes(1 << 20) == 16 * MB
    assert answer_tokens(None, 10, Limits()) == 10
    assert answer_tokens(-1, 10, Limits(answer_tokens=4)) == 4
    assert answer_tokens(3, 10, Limits(answer_tokens=4)) == 3


@pytest.mark.slow
def test_health_answers_and_memory_stays_while_large_bodies_arrive() -> None:
    """The hostile kinds: too long, as long as may be, full of values. The bounds suit a busy machine;
    `bench.serving` measures."""
    kinds = [
        json.dumps({"prompt": "x" * 16 * MB}).encode(),
        json.dumps({"prompt": "word, " * (MB // 2)}).encode(),
        b'{"prompt": [' + b"1," * (2 * MB - 20) + b"1]}",
        b'{"prompt": [' + b"{}," * 49_000 + b"1]}",
    ]
    ended = threading.Event()
    program = [sys.executable, "-m", "tests.serve.scripted_server"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url, server = process.stdout.readline().strip(), psutil.Process(process.pid)

        def send(kind: bytes) -> None:
            with httpx.Client(base_url=url, timeout=60) as client:
                while not ended.is_set():
                    assert client.post("/v1/completions", content=kind).status_code in (400, 413, 503)

        before, waits, end = server.memory_info().rss, list[float](), time.monotonic() + 8
        most = before
        with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=url, timeout=20) as client:
            sending = [pool.submit(send, kind) for kind in kinds]
            while time.monotonic() < end:
                start = time.monotonic()
                assert client.get("/health").status_code == 200
                waits.append(time.monotonic() - start)
                most = max(most, server.memory_info().rss)
                time.sleep(0.02)
            ended.set()
            for future in sending:
                future.result()
        process.stdin.close()
    assert sorted(waits)[len(waits) * 95 // 100] < 2
    assert most - before < 100_000_000


def test_a_small_request_does_not_wait_for_large_ones(serving: Callable[..., str], engine: Any) -> None:
    url = serving(engine)
    body = b'{"prompt": [' + b"1," * (MB // 2) + b"1]}"
    sender = threading.Thread(target=httpx.post, args=(f"{url}/v1/completions",), kwargs={"content": body})
    sender.start()
    time.sleep(0.05)
    start = time.monotonic()
    assert httpx.post(f"{url}/v1/completions", json={"prompt": "Hi"}).status_code == 200
    # While the large one is still being read; on a fast machine that may have ended.
    assert sender.is_alive() or time.monotonic() - start < 1
    sender.join()
    until(lambda: engine.idle)
