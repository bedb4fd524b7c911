"""`rockledge npu demo` (`make demo-npu`) with a toy: through either driver, and all that it tells."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rockledge.cli import demo, npu_demo
from rockledge.runtime.engine import Engine
from rockledge.runtime.offload.status import NpuStatus

Run = Callable[..., Any]


pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_compresses_answers_and_says_what_ran_where(
    rockledge: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "demo_model", lambda terminal: checkpoint)
    monkeypatch.setattr(demo, "BITS", 5.0)
    monkeypatch.setattr(npu_demo, "PARAGRAPHS", 0)  # a toy's context is short
    flags = ("-o", tmp_path / "out", "--max-tokens", 5, "--npu-rows", 2)
    done = rockledge("npu", "demo", *flags)
    assert done.code == 0
    assert "Estimate" in done.err
    assert f"rockledge npu emulate --driver rknpu -- rockledge run {tmp_path / 'out'} -" in done.out
    assert f"> {npu_demo.QUESTION}\n" in done.out
    assert "\nWithout the NPU the answer is the same.\n" in done.out
    told = done.out[done.out.index("Which work ran where") :]
    for words in ("NPU (rknpu 0.9.8, 3 cores)\n  linear layers of the prompt", "in 1 step", "attention"):
        assert words in told

    again = rockledge("npu", "demo", *flags, "--driver", "rocket", "--json")
    assert "Estimate" not in again.err
    body = again.json
    answer, device = body["answer"], body["device"]
    assert f"\n\n{answer['text']}\n" in done.out
    assert body["same_without_npu"]
    assert 0 < answer["npu"]["waited_seconds"] <= answer["npu"]["busy_seconds"]
    assert answer["npu"]["rows"] == answer["prompt_tokens"] > len(npu_demo.QUESTION)
    assert device["programs"] >= answer["npu"]["jobs"] > answer["npu"]["blocks"] > 0
    assert (device["driver"], device["buffers_left"], device["files_left"]) == ("rocket", 0, 0)
    (on_npu, linears), (on_cpu, rest) = body["where"].items()
    assert on_npu.startswith("NPU (rocket")
    assert f"{answer['prompt_tokens']} of {answer['prompt_tokens']} tokens" in linears[0]
    assert f"{answer['npu']['blocks']} blocks" in linears[0]
    assert on_cpu.startswith("CPU (")
    assert rest[-1] == f"the answer: {answer['completion_tokens']} tokens"


def test_what_the_npu_left_is_the_cpus(artifact: Path) -> None:
    npu = NpuStatus("failed", "it went away", "rknpu", "0.9.8", rows=64, steps=1, fallbacks=1)
    answer = {"npu": asdict(npu), "prompt_tokens": 100, "completion_tokens": 7}
    with Engine.load(artifact, npu="off") as engine:
        *_, rest = npu_demo.where(engine, answer).values()
    assert "linear layers" in rest[-1]
    assert "36 tokens" in rest[-1]
    assert "1 steps" in rest[-1]


def test_a_device_that_cannot_be_used_is_one_sentence(
    rockledge: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The formula leaves a toy to the CPU, and the demo requires the NPU."""
    monkeypatch.setattr(npu_demo, "compressed", lambda *_: None)
    done = rockledge("npu", "demo", "-o", artifact, "--json")
    assert done.code == 1
    assert "faster for every step" in json.loads(done.out)["error"]


def test_the_prompt_is_long_enough_for_the_npu() -> None:
    assert len(npu_demo.demo_prompt()) / 4.5 > 100  # characters a token in English
