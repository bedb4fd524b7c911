"""The cost bench: steps are booked once, the whole is scaled as it says, random weights stay the same."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import compress_cost
from bench.compress_cost import Clock, RandomCheckpoint, scaled
from rockledge.model.family import stored_tensors
from rockledge.synth import SHAPES


def test_time_inside_a_step_counts_once() -> None:
    clock = Clock("cpu")
    start = time.perf_counter()
    with clock.step("outer"):
        time.sleep(0.02)
        with clock.step("inner"):
            time.sleep(0.05)
    whole = time.perf_counter() - start
    assert clock.seconds["inner"] >= 0.05
    assert 0.02 <= clock.seconds["outer"] < 0.05 + whole - 0.07
    assert sum(clock.seconds.values()) <= whole


def test_steps_grow_with_what_they_depend_on() -> None:
    times = {"b": 8, "t": 3, "h": 2, "v": 5}
    assert scaled(1.0, "bt", times) == 24
    assert scaled(1.0, "bh", times) == 16
    assert scaled(1.0, "v", times) == 5
    assert scaled(1.0, "tv", times) == 15


def test_random_weights_are_the_same_at_every_reading() -> None:
    checkpoint = RandomCheckpoint(SHAPES["toy"], Clock("cpu"))
    assert checkpoint.names() == [tensor.name for tensor in stored_tensors(SHAPES["toy"])]
    for name in checkpoint.names():
        values = checkpoint.tensor(name)
        assert values.shape == checkpoint.shape(name)
        assert (values == checkpoint.tensor(name)).all()
    first, second = (checkpoint.tensor(f"layers.{i}.attn.q") for i in (0, 1))
    assert not np.array_equal(first, second)


def run(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the bench writes for the toy shape."""
    for module, name, _, _ in compress_cost.STEPS:
        monkeypatch.setattr(module, name, getattr(module, name))  # what the run wraps is put back
    monkeypatch.setattr(compress_cost, "RESULTS", folder)
    always = ["--shape", "toy", "--threads", "1", "--bits", "6"]
    monkeypatch.setattr(sys, "argv", ["compress_cost", *always, *arguments])
    compress_cost.main()
    (file,) = folder.iterdir()
    assert file.name.startswith("compress-cost-toy-")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_fast_recipe_takes_no_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(["--fast", "--blocks", "1", "--tokens", "1024"], tmp_path, monkeypatch)
    assert found["recipe"] == "fast"
    assert "factor" not in found["seconds"]


def test_a_run_writes_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(["--blocks", "1", "--tokens", "1024"], tmp_path, monkeypatch)
    assert found["seconds"].keys() >= {step for _, _, step, _ in compress_cost.STEPS}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert found["processor_seconds"].keys() == found["seconds"].keys()
    # One thread, and this one: the processor worked no longer than the run took.
    assert 0 < found["processor_seconds"]["round"] < 1.5 * found["seconds"]["round"]
    assert found["peak_memory_bytes"] > 1e8
    # A second block, and 6,144 tokens and 2,048 held out instead of 1,024 and those.
    assert found["whole_seconds"] > sum(found["whole"]["seconds"].values()) > 0
    assert found["whole"]["seconds"]["forward"] == pytest.approx(
        2 * 8 / 3 * found["seconds"]["forward"], abs=0.1
    )
