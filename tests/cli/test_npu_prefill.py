"""`--npu` of run, bench and serve on a virtual NPU: used, told, required, and failing while it serves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rockledge_npu_lab.virtual.device_faults import parse_faults
from rockledge_npu_lab.virtual.preload import environment
from rockledge_npu_lab.virtual.serve_device import VirtualNpu

Run = Callable[..., Any]
ROCKLEDGE = [sys.executable, "-m", "rockledge"]
PROMPT = "Tell me what a gateway does all day. " * 3
SHORT = ("--max-tokens", "4", "--threads", "1", "--json")


def on_virtual_npu(*arguments: object, driver: str = "rknpu", faults: Path | None = None) -> Any:
    options = ["--faults", str(faults)] if faults else []
    command = [*ROCKLEDGE, "npu", "emulate", "--driver", driver, *options, "--", *ROCKLEDGE]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_run_reads_its_prompt_there_and_answers_the_same(rockledge: Run, artifact: Path, driver: str) -> None:
    alone = rockledge("run", artifact, PROMPT, *SHORT, "--npu", "off").json
    assert alone["npu"]["state"] == "off"
    flags = ("--npu", "require", "--npu-rows", 2, "--npu-attention-from", "1")
    done = on_virtual_npu("run", artifact, PROMPT, *SHORT, *flags, driver=driver)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["text"], found["prompt_tokens"]) == (alone["text"], alone["prompt_tokens"])
    npu = found["npu"]
    assert (npu["state"], npu["driver"], npu["rows"]) == ("ready", driver, found["prompt_tokens"])
    assert (npu["attention_from"], npu["attention_rows"]) == (1, found["prompt_tokens"] - 1)
    assert f"NPU: {driver}" in done.stderr
    assert "not freed" not in done.stderr


def test_people_read_what_ran_where(artifact: Path) -> None:
    done = on_virtual_npu("run", artifact, PROMPT, *SHORT[:-1], "--npu-rows", 2)
    assert "[NPU rknpu 0.9.8: " in done.stderr
    assert "tokens in 1 step]" in done.stderr


def test_bench_says_so_too(artifact: Path) -> None:
    quick = ("--prompt", 20, "--generate", 2, "--repeat", 1, "--read-buffer", "4M", "--threads", 1)
    done = on_virtual_npu("bench", artifact, *quick, "--npu-rows", 2, "--json")
    npu = json.loads(done.stdout)["npu"]
    assert npu["state"] == "ready"
    assert npu["rows"] == 20 * npu["steps"] > 0


def test_require_is_exit_code_1_with_the_reason(artifact: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"faults": [{"kind": "denied", "times": 100}]}))
    done = on_virtual_npu("run", artifact, "hi", *SHORT, "--npu", "require", faults=faults)
    assert done.returncode == 1
    assert "60-rockledge-npu.rules" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    "flags",
    [("--npu", "perhaps"), ("--npu-rows", "0"), ("--npu-rows", "many"), ("--npu-attention-from", "-1")],
)
def test_senseless_flags(rockledge: Run, artifact: Path, flags: tuple[str, str]) -> None:
    done = rockledge("run", artifact, "hi", *flags)
    assert done.code == 2
    assert flags[0] in done.err


def test_a_server_outlives_its_npu(artifact: Path, tmp_path: Path) -> None:
    """The first requests are read on the NPU; then it fails for good, which costs no answer."""
    flags = ["--port", "0", "--threads", "1", "--json", "--npu-rows", "2"]
    body = {"max_tokens": 5, "temperature": 0}
    # Five jobs prove the cores, twelve try programs, eight are the first request's.
    lost = parse_faults({"faults": [{"kind": "skipped", "at": 5 + 12 + 8 + 5, "times": 1000}]})
    log = tmp_path / "log"
    with (
        VirtualNpu("rknpu", lost) as npu,
        open(log, "wb") as err,
        subprocess.Popen(
            [*ROCKLEDGE, "serve", str(artifact), *flags],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=environment(npu.address, os.environ),
        ) as server,
    ):
        assert server.stdout is not None
        try:
            ready = json.loads(server.stdout.readline())
            assert ready["npu"]["state"] == "ready"
            with httpx.Client(base_url=ready["url"], timeout=60) as http:

                def answer(prompt: str) -> str:
                    messages = [{"role": "user", "content": prompt}]
                    reply = http.post("/v1/chat/completions", json={**body, "messages": messages})
                    assert reply.status_code == 200
                    return str(reply.json()["choices"][0]["message"]["content"])

                first = answer(PROMPT)
                assert http.get("/health").json()["npu"]["state"] == "ready"
                assert "rockledge_npu_in_use 1.0\n" in http.get("/metrics").text
                others = [f"{letter}{PROMPT}" for letter in "abc"]  # found in no cache
                answers = [answer(other) for other in others]
                assert [answer(prompt) for prompt in (PROMPT, *others)] == [first, *answers]
                end = time.monotonic() + 20
                health = http.get("/health")  # how things stood a moment ago
                while health.json()["npu"]["state"] == "ready" and time.monotonic() < end:
                    time.sleep(0.1)
                    health = http.get("/health")
                metrics = http.get("/metrics").text
        finally:
            server.terminate()
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    state = health.json()["npu"]
    assert (state["state"], state["fallbacks"], state["steps"]) == ("failed", 1, 2)
    assert state["faults"] > 1
    assert "given up" in state["reason"]
    for sample in ("in_use 0", "fallbacks_total 1", "steps_total 2", f"faults_total {state['faults']}"):
        assert f"rockledge_npu_{sample}.0\n" in metrics
    assert log.read_text().count("CPU from now on") == 1
