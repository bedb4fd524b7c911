"""`rockledge serve` as a process: its address, its answers, its end."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Run = Callable[..., Any]


def test_a_server_tells_its_address_answers_and_ends_at_ctrl_c(serving: Run) -> None:
    with serving() as served:
        assert served.ready["model"] == "toy"
        with httpx.Client(base_url=served.ready["url"], timeout=20) as http:
            assert http.get("/health").json()["status"] == "ok"
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
            answer = http.post("/v1/chat/completions", json=body)
            assert answer.json()["usage"]["completion_tokens"] == 3
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 130
        assert served.process.stdout.read() == ""
        log = served.log.read_text()
    assert "kernel" in log
    assert "POST /v1/chat/completions" in log
    assert "Traceback" not in log


def test_ctrl_c_during_an_answer_is_a_clean_end(serving: Run) -> None:
    with serving() as served:
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400, "stream": True}
        with (
            httpx.Client(base_url=served.ready["url"], timeout=20) as http,
            http.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            served.process.send_signal(signal.SIGINT)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]" or "error" in rest[-1]
        assert served.process.wait(20) == 130
        assert "Traceback" not in served.log.read_text()


def test_a_server_that_cannot_listen_says_so(rockledge: Run, artifact: Path) -> None:
    done = rockledge("serve", artifact, "--host", "203.0.113.1", "--json")
    assert done.code == 2
    assert "203.0.113.1" in done.json["error"]


def test_a_taken_port_is_found_before_a_model_is_converted(
    rockledge: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = rockledge("serve", checkpoint, "--port", port)
    assert done.code == 2
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in done.err
    assert not (tmp_path / "cache").exists()
