"""`rockledge serve` as a process: its address, its answers, its end."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rockledge.artifact.layout import TENSORS

Run = Callable[..., Any]


def test_a_server_tells_its_address_answers_and_ends_at_ctrl_c(serving: Run) -> None:
    with serving() as served:
        assert served.ready["model"] == "toy"
        with httpx.Client(base_url=served.ready["url"], timeout=20) as http:
            assert http.get("/health").json()["status"] == "ok"
            assert "</html>" in http.get("/").text
            assert http.get("/console/models").json()["models"][0]["name"] == "toy"
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "temperature": 0}
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


def test_a_governor_needs_a_board_and_a_target_that_can_be_kept(rockledge: Run, artifact: Path) -> None:
    done = rockledge("serve", artifact, "--governor", "on", "--json")
    assert done.code == 2
    assert "--governor on needs a known board that says how warm it is" in done.json["error"]
    for target in ("nan", "80", "-5"):
        done = rockledge("serve", artifact, "--target-temperature", target)
        assert done.code == 2
        assert "is not a number of at least 45 and at most 73" in done.err


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


def test_options_reach_the_server(serving: Run) -> None:
    flags = [
        "--max-answer-tokens",
        "2",
        "--max-body",
        "1000",
        "--parallel",
        "2",
        "--max-waiting",
        "0",
        "--ctx",
        "256",
        "--alias",
        "gpt-4o",
        "--alias",
        "other",
        "--strict",
        "--control-tokens",
        "--no-console",
    ]
    with serving(*flags) as served, httpx.Client(base_url=served.ready["url"], timeout=20) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["toy", "gpt-4o", "other"]
        assert http.post("/v1/completions", json={"prompt": "Hi", "keep_alive": 1}).status_code == 400
        turns = [{"role": "user", "content": text} for text in ("a", "a<|end|>")]
        counts = [http.post("/tokenize", json={"messages": [turn]}).json()["count"] for turn in turns]
        assert counts[1] == counts[0] + 1
        greedy = {"prompt": "Hi", "temperature": 0}
        assert http.post("/v1/completions", json=greedy).json()["usage"]["completion_tokens"] == 2
        assert http.post("/v1/completions", content=b" " * 1001).status_code == 413
        assert served.ready["context"] == 256
        assert http.get("/console/console.js").status_code == 404


@pytest.mark.parametrize(
    "flags",
    [
        ["--parallel", "0"],
        ["--step-ms", "0"],
        ["--grace", "-1"],
        ["--connections", "none"],
        ["--max-body", "x"],
        ["--prefix-bytes", "1G"],
    ],
)
def test_options_that_make_no_sense_are_refused(rockledge: Run, artifact: Path, flags: list[str]) -> None:
    done = rockledge("serve", artifact, *flags, "--json")
    assert done.code == 2
    assert flags[0] in done.json["error"]


def long_stream(url: str, begun: threading.Event) -> str:
    """All of a streamed answer that fills the context; `begun` is set with its first event."""
    body = {
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "ignore_eos": True,
        "temperature": 1,
    }
    text = ""
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
        for line in response.iter_lines():
            text += line + "\n"
            begun.set()
    return text


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_signal_during_an_answer_ends_clean(serving: Run, number: signal.Signals, code: int) -> None:
    with serving("--grace", "20") as served, ThreadPoolExecutor(1) as pool:
        begun = threading.Event()
        stream = pool.submit(long_stream, served.ready["url"], begun)
        assert begun.wait(20)
        served.process.send_signal(number)
        assert stream.result().endswith("data: [DONE]\n\n")
        assert served.process.wait(20) == code
        log = served.log.read_text()
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(serving: Run) -> None:
    with serving("--grace", "100", "--ctx", "512") as served:
        with httpx.Client(base_url=served.ready["url"], timeout=20) as http:
            body = {"prompt": ["a"] * 8, "max_tokens": 500, "ignore_eos": True, "stream": True}
            with http.stream("POST", "/v1/completions", json=body) as response:
                next(response.iter_lines())
                served.process.send_signal(signal.SIGINT)
                time.sleep(0.05)
                served.process.send_signal(signal.SIGINT)
                assert served.process.wait(10) == 130
        log = served.log.read_text()
    assert "Traceback" not in log


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    """An artifact that a test may damage."""
    return Path(shutil.copytree(artifact, tmp_path / "copied"))


def test_a_models_directory_is_only_read(serving: Run, copied: Path) -> None:
    """It may belong to another user, and be mounted read-only."""
    for path in [*copied.iterdir(), copied]:
        path.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in [copied, *copied.rglob("*")]}
    try:
        with serving(artifact=copied) as served:
            answer = httpx.post(f"{served.ready['url']}/v1/completions", json={"prompt": "Hi"}, timeout=20)
            assert answer.status_code == 200
        assert {path: path.stat().st_mtime_ns for path in [copied, *copied.rglob("*")]} == before
    finally:
        copied.chmod(0o755)


def test_a_file_overwritten_while_serving_ends_readiness(serving: Run, copied: Path) -> None:
    with serving(artifact=copied) as served, httpx.Client(base_url=served.ready["url"], timeout=20) as http:
        end = time.monotonic() + 20
        while http.get("/health").json()["integrity"] != "verified":
            assert time.monotonic() < end
        with open(copied / TENSORS, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([byte ^ 255]))
        while (health := http.get("/health")).status_code == 200:
            assert time.monotonic() < end
        while http.get("/health").json()["integrity"] != "damaged":
            assert time.monotonic() < end
        assert http.post("/v1/completions", json={"prompt": "Hi"}).status_code == 503
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 1
        assert health.json()["message"]
        assert served.log.read_text().rstrip().endswith("is wrong; fetch it again")


def test_a_file_cut_short_while_serving_is_said(serving: Run, copied: Path) -> None:
    with serving(artifact=copied) as served, httpx.Client(base_url=served.ready["url"], timeout=20) as http:
        os.truncate(copied / TENSORS, 4096)
        end = time.monotonic() + 20
        try:  # either a step has met the end of the file, or the watch was first
            while http.get("/health").status_code == 200:
                http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 1})
                assert time.monotonic() < end
            served.process.send_signal(signal.SIGTERM)
        except httpx.TransportError:
            pass
        assert served.process.wait(20) == 1
        assert "was cut short while in use; fetch the artifact again" in served.log.read_text()
