"""Metrics as Prometheus reads them, and what health says of the NPU."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rockledge.board.levers import Setting
from rockledge.errors import ArtifactError
from rockledge.runtime.governor_status import GovernorStatus
from rockledge.runtime.histogram import Observed
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.streaming.status import StreamStats
from rockledge.serve.errors import ApiError
from rockledge.serve.integrity import Integrity

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
    busy_seconds=2.5,
    attention_from=4096,
    attention_rows=300,
    attention_jobs=96,
)


def scrape(http: httpx.Client) -> dict[str, float]:
    """Samples by name and labels, as Prometheus's own parser reads them; every family has its help."""
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(response.text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_the_npu_is_counted(http: httpx.Client, engine: Any) -> None:
    engine.npu = READY
    found = scrape(http)
    assert found['rockledge_info{model="scripted"}'] == 1
    labels = {'state="ready"', 'driver="rknpu"', 'version="0.9.8"', 'node="/dev/dri/renderD129"'}
    [info] = [name for name in found if name.startswith("rockledge_npu_info{")]
    assert set(info.removeprefix("rockledge_npu_info{")[:-1].split(",")) == labels
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
        "busy_seconds_total": 2.5,
        "attention_tokens_total": 300,
        "attention_jobs_total": 96,
    }
    assert {name: found[f"rockledge_npu_{name}"] for name in expected} == expected
    health = http.get("/health").json()
    assert (health["npu"]["state"], health["npu"]["faults"], health["npu"]["reason"]) == ("ready", 2, None)
    assert health["npu"]["attention_from"] == 4096


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


FULL = Setting(4, 1.0, 1e9, 16)
HELD = GovernorStatus("holding back", 71.5, 72.0, Setting(2, 0.5, 7e8, 3, 0.25), FULL, 0.8)
DOUBTED = GovernorStatus("safe", None, 72.0, Setting(1, 1.0, 0.0, 16), FULL, 0.5, reason="it jumps")


def test_the_governor_is_seen(serving: Callable[..., str], engine: Any) -> None:
    now = [HELD]
    with httpx.Client(base_url=serving(engine, governor=lambda: now[0]), timeout=20) as http:
        health = http.get("/health").json()["governor"]
        assert (health["state"], health["temperature_celsius"], health["target_celsius"]) == (
            "holding back", 71.5, 72.0,
        )  # fmt: skip
        setting = {"threads": 2, "prompt_share": 0.5, "npu_mhz": 700, "sequences": 3, "rest_share": 0.25}
        assert health["setting"] == setting
        assert health["full_setting"]["threads"] == 4
        assert health["reason"] is None
        expected = {
            "temperature_celsius": 71.5, "target_celsius": 72, "holding_back": 1, "safe": 0, "throttled": 0,
            "speed_kept": 0.8, "threads": 2, "prompt_share": 0.5, "npu_hertz": 7e8, "sequences": 3,
            "rest_share": 0.25,
        }  # fmt: skip
        found = scrape(http)
        assert {name: found[f"rockledge_governor_{name}"] for name in expected} == expected
        now[0] = DOUBTED
        health = http.get("/health").json()["governor"]
        assert (health["state"], health["reason"]) == ("safe", "it jumps")
        assert health["temperature_celsius"] is health["setting"]["npu_mhz"] is None
        found = scrape(http)
        assert found["rockledge_governor_safe"] == 1
        assert "rockledge_governor_temperature_celsius" not in found


def test_a_server_without_a_governor_says_nothing_of_one(http: httpx.Client) -> None:
    assert http.get("/health").json()["governor"] is None
    assert not [name for name in scrape(http) if "governor" in name]


def test_weights_that_are_streamed_are_counted(http: httpx.Client, engine: Any) -> None:
    assert not any(name.startswith("rockledge_streaming") for name in scrape(http))
    assert http.get("/health").json()["streaming"] is None
    engine.streaming = StreamStats(True, 5, 7, 3, bytes_read=70, embedding_read=9, waited_seconds=1.5)
    expected = {
        "kept_bytes": 5,
        "step_bytes": 7,
        "ring_bytes": 3,
        "read_bytes_total": 70,
        "embedding_bytes_total": 9,
        "waited_seconds_total": 1.5,
    }
    found = scrape(http)
    assert {name: found[f"rockledge_streaming_{name}"] for name in expected} == expected
    streaming = http.get("/health").json()["streaming"]
    assert (streaming["direct"], streaming["streamed"], streaming["waited_seconds"]) == (True, 7, 1.5)


def test_requests_and_damage_are_seen(serving: Callable[..., str], engine: Any) -> None:
    def damaged(_: object) -> None:
        raise ArtifactError("tensor embed.codes is damaged; copy the artifact again")

    with httpx.Client(
        base_url=serving(engine, integrity=Integrity(damaged, poll_s=0.02)), timeout=20
    ) as http:
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


def test_requests_are_counted_by_route_and_status(http: httpx.Client) -> None:
    def count(route: str, status: int, method: str = "POST") -> float:
        labels = f'method="{method}",route="{route}",status="{status}"'
        return found.get(f"rockledge_http_requests_total{{{labels}}}", 0)

    found = scrape(http)
    wanted = [("/v1/completions", 200), ("/v1/completions", 400), ("other", 404), ("other", 415)]
    before = [count(*one) for one in wanted]
    http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 1})
    http.post("/v1/completions", json={"prompt": 1})
    for number in range(3):  # what clients make up makes no series of its own
        http.post(f"/made/up/{number}", json={})
    http.post("/v1/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    http.request("MADEUP", "/v1/completions")
    found = scrape(http)
    assert [count(*one) for one in wanted] == [old + n for old, n in zip(before, (1, 1, 3, 1), strict=True)]
    assert not any("made" in name.lower() for name in found)


def test_histograms_are_those_of_the_engine(http: httpx.Client, engine: Any) -> None:
    observed = Observed((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        observed.add(value)
    engine.times = {"first_token": observed.histogram()}
    found = scrape(http)
    buckets = {bound: found[f'rockledge_time_to_first_token_seconds_bucket{{le="{bound}"}}'] for bound in
               ("0.1", "1.0", "+Inf")}  # fmt: skip
    assert buckets == {"0.1": 2, "1.0": 3, "+Inf": 4}
    assert found["rockledge_time_to_first_token_seconds_count"] == 4
    assert found["rockledge_time_to_first_token_seconds_sum"] == pytest.approx(7.65)
    assert found["rockledge_step_seconds_count"] == 0


def test_openmetrics_is_spoken_to_those_who_ask(http: httpx.Client) -> None:
    response = http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "rockledge_steps" in {family.name for family in openmetrics(response.text)}


def test_probes_tell_a_restart_from_a_wait(new_server: Any, engine: Any) -> None:
    server = new_server(engine)
    with httpx.Client(base_url=server.url, timeout=20) as http:
        assert [http.get(f"/health/{what}").status_code for what in ("live", "ready")] == [200, 200]
        server.front.draining.set()
        assert [http.get(f"/health/{what}").status_code for what in ("live", "ready")] == [200, 503]
        server.front.draining.clear()
        server.front.failure = ApiError("damaged", status=503, code="artifact_damaged")
        assert [http.get(f"/health/{what}").status_code for what in ("live", "ready")] == [200, 503]
        server.front.failure = ApiError("gone", status=503, code="engine_failed")
        assert [http.head(f"/health/{what}").status_code for what in ("live", "ready")] == [503, 503]
        assert http.get("/health/ready").json() == {"status": "failed", "message": "gone"}
    server.close()
