"""`rockledge serve` as a process: its address, its answers, its end."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

Run = Callable[..., Any]


def test_a_server_tells_its_address_answers_and_ends_at_ctrl_c(artifact: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rockledge",
        "serve",
        str(artifact),
        "--port",
        "0",
        "--threads",
        "1",
        "--json",
    ]
    log = tmp_path / "log"
    with (
        open(log, "wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            ready = json.loads(server.stdout.readline())
            assert ready["model"] == "toy"
            with httpx.Client(base_url=ready["url"], timeout=20) as http:
                assert http.get("/health").json()["status"] == "ok"
                body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
                answer = http.post("/v1/chat/completions", json=body)
                assert answer.json()["usage"]["completion_tokens"] == 3
            server.send_signal(signal.SIGINT)
            assert server.wait(20) == 130
            assert server.stdout.read() == ""
        finally:
            server.kill()
    text = log.read_text()
    assert "kernel" in text
    assert "POST /v1/chat/completions" in text
    assert "Traceback" not in text


def test_a_server_that_cannot_listen_says_so(rockledge: Run, artifact: Path) -> None:
    done = rockledge("serve", artifact, "--host", "203.0.113.1", "--json")
    assert done.code == 2
    assert "203.0.113.1" in done.json["error"]
