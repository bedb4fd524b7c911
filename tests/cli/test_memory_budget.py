"""`--memory-budget` of the commands that load an engine."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.runtime.streaming.models import budget_for, made

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("budget") / "model")


def test_an_answer_is_the_same_within_a_budget(rockledge: Run, model: Path) -> None:
    words = ("run", model, "Hello", "--max-tokens", 7, "--ctx", 100, "--threads", 1)
    expected = rockledge(*words, "--json").json["text"]
    done = rockledge(*words, "--memory-budget", budget_for(model, 0.3, context=100), "--json")
    assert (done.code, done.json["text"]) == (0, expected)
    assert "are read from the disk in every step" in done.err


def test_bench_says_what_was_read(rockledge: Run, model: Path) -> None:
    flags = (
        "--prompt",
        8,
        "--generate",
        3,
        "--repeat",
        1,
        "--read-buffer",
        "1M",
        "--threads",
        1,
        "--ctx",
        100,
    )
    budget = budget_for(model, 0.3, context=100)
    done = rockledge("bench", model, *flags, "--memory-budget", budget, "--json")
    assert done.json["streaming"]["bytes_read"] > done.json["streaming"]["streamed"] > 0
    assert rockledge("bench", model, *flags, "--json").json["streaming"] is None
    assert "for the disk" in rockledge("bench", model, *flags, "--memory-budget", budget).out


@pytest.mark.parametrize("command", ["run", "bench", "chat"])
def test_too_small_a_budget_is_one_sentence(rockledge: Run, model: Path, command: str) -> None:
    words = ("Hello",) if command == "run" else ()
    done = rockledge(command, model, *words, "--memory-budget", "1M", "--json")
    assert done.code == 1
    assert "--memory-budget is 1.0 MB, expected at least" in done.json["error"]


def test_an_npu_that_is_required_is_refused(rockledge: Run, model: Path) -> None:
    budget = budget_for(model, 0, context=100)
    done = rockledge(
        "run",
        model,
        "Hi",
        "--ctx",
        100,
        "--threads",
        1,
        "--memory-budget",
        budget,
        "--npu",
        "require",
        "--json",
    )
    assert done.code == 1
    assert "the weights are streamed from the disk" in done.json["error"]


def test_a_server_within_a_budget(serving: Run, model: Path) -> None:
    budget = budget_for(model, 0.3, context=200)
    with (
        serving("--memory-budget", str(budget), "--ctx", "200", artifact=model) as served,
        httpx.Client(base_url=served.ready["url"], timeout=30) as http,
    ):
        answer = http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 3})
        assert answer.json()["usage"]["completion_tokens"] == 3
        found = http.get("/metrics").text
        read = re.search(r"^rockledge_streaming_read_bytes_total (\S+)$", found, re.MULTILINE)
        taken = re.search(r"^rockledge_model_bytes{.*} (\S+)$", found, re.MULTILINE)
        assert read is not None
        assert taken is not None
        assert float(read[1]) > 0
        assert float(taken[1]) <= budget
