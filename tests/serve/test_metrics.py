"""Metrics as Prometheus reads them, and what health says of the NPU."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rockledge.errors import ArtifactError
from rockledge.runtime.offload.status import NpuStatus
from rockledge.serve.integrity import Integrity

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\d+)')
READY = NpuStatus(
    "ready",
    driver="rknpu",
    version="0.9.8",
    node="/dev/dri/renderD129",
    cores=3,
    from_rows=48,
    step_rows=512,
    buffer_bytes=1000,
    steps=4,
    rows=900,
    blocks=480,
    unpacked_bytes=77,
    jobs=484,
    faults=2,
    resets=1,
)


def scrape(http: httpx.Client) -> dict[str, int]:
    """Samples by name and labels; every one has its help and its kind before it."""
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.split("\n")
    assert lines.pop() == ""
    found = {}
    for about, kind, line in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert re.fullmatch(rf"# HELP {sample[1]} \S.*", about)
        assert kind == f"# TYPE {sample[1]} {'counter' if sample[1].endswith('_total') else 'gauge'}"
        found[sample[1] + (f"{{{sample[2]}}}" if sample[2] else "")] = int(sample[3])
    return found


def test_the_npu_is_counted(http: httpx.Client, engine: Any) -> None:
    engine.npu = READY
    found = scrape(http)
    assert found['rockledge_info{model="scripted"}'] == 1
    labels = 'state="ready",driver="rknpu",version="0.9.8",node="/dev/dri/renderD129"'
    assert found[f"rockledge_npu_info{{{labels}}}"] == 1
    expected = {
        "in_use": 1,
        "buffer_bytes": 1000,
        "steps_total": 4,
        "tokens_total": 900,
        "blocks_total": 480,
        "unpacked_bytes_total": 77,
        "jobs_total": 484,
        "faults_total": 2,
        "resets_total": 1,
        "fallbacks_total": 0,
    }
    assert {name: found[f"rockledge_npu_{name}"] for name in expected} == expected
    health = http.get("/health").json()
    assert (health["npu"]["state"], health["npu"]["faults"], health["npu"]["reason"]) == ("ready", 2, None)


@pytest.mark.parametrize(
    "status", [NpuStatus("none", "there is none"), NpuStatus("failed", 'it said "no"', "rocket", node="a\\b")]
)
def test_a_server_without_an_npu_is_well(http: httpx.Client, engine: Any, status: NpuStatus) -> None:
    engine.npu = status
    found = scrape(http)
    assert found["rockledge_npu_in_use"] == 0
    assert any(f'state="{status.state}"' in name for name in found)
    health = http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert health.json()["npu"]["reason"] == status.reason


def test_requests_and_damage_are_seen(serving: Callable[..., str], engine: Any) -> None:
    def damaged(_: object) -> None:
        raise ArtifactError("tensor embed.codes is damaged; copy the artifact again")

    with httpx.Client(base_url=serving(engine, integrity=Integrity(damaged, poll_s=0.02)), timeout=20) as http:
        while http.get("/health").status_code == 200:
            pass
        found = scrape(http)
        assert (found["rockledge_requests"], found["rockledge_artifact_damaged"]) == (0, 1)


def test_the_engines_work_is_counted(http: httpx.Client, engine: Any) -> None:
    before = scrape(http)["rockledge_answer_tokens_total"]
    http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 5})
    found = scrape(http)
    assert found["rockledge_answer_tokens_total"] == before + 5
    assert (found["rockledge_sequences_running"], found["rockledge_sequences_waiting"]) == (0, 0)
