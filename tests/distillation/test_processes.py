"""Several processes, and a process that is killed: the curve is that of one which nothing disturbs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.distillation.pair import Pair

from rockledge.artifact import open_artifact
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.learning.start import asked_recipe
from rockledge.quantization.steps import Steps

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def command(pair: Pair, out: Path, *more: object) -> list[str]:
    words = ["distill", pair.teacher, pair.student, "--data", pair.data, "-o", out, "--json"]
    words += [
        "--sequence",
        48,
        "--batch",
        4,
        "--tokens",
        48 * 4 * 12,
        "--top-k",
        16,
        "--save-every",
        2,
        *more,
    ]
    return [str(word) for word in words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def result(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def losses(body: Any) -> list[list[float]]:
    return [[entry["loss"], entry["kl"], entry["data_loss"]] for entry in body["curve"]]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def shared(pair: Pair, out: Path, *program: str, **more: str) -> tuple[Any, str]:
    """Two processes by torchrun, which fill a cache together: the object of the first, and what they said."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    run += ["--master-port", str(free_port()), *program]
    run += command(pair, out, "--cache-logits", out.with_name("cache"))
    done = subprocess.run(run, env=environment(**more), capture_output=True, text=True, timeout=280)
    return result(done), done.stderr


@pytest.fixture(scope="module")
def alone(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("alone") / "out"
    run = [sys.executable, "-m", "rockledge", *command(pair, out)]
    return result(subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=280))


def test_two_processes_learn_what_one_does(alone: Any, pair: Pair, tmp_path: Path) -> None:
    body, _ = shared(pair, tmp_path / "out", "-m", "rockledge")
    assert body["processes"] == 2
    np.testing.assert_allclose(losses(body), losses(alone), rtol=0, atol=1e-5)
    for name, value in alone["held_out_after"].items():
        assert body["held_out_after"][name] == pytest.approx(value, abs=1e-5)


def test_two_processes_that_share_the_weights_learn_what_one_does(
    alone: Any, pair: Pair, tmp_path: Path
) -> None:
    body, said = shared(pair, tmp_path / "out", str(Path(__file__).with_name("fsdp_on_cpus.py")), **FSDP)
    assert "as DistributedType.FSDP" in said
    np.testing.assert_allclose(losses(body), losses(alone), rtol=0, atol=1e-5)
    for name, value in alone["held_out_after"].items():
        assert body["held_out_after"][name] == pytest.approx(value, abs=1e-5)


def test_a_killed_run_goes_on_to_the_same_curve(alone: Any, pair: Pair, tmp_path: Path) -> None:
    out, checkpoints = tmp_path / "out", tmp_path / ".out.distil" / "checkpoints"
    run = [sys.executable, "-m", "rockledge", *command(pair, out)]
    first = subprocess.Popen(run, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(checkpoints.glob("*/complete.json")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not out.exists()
    body = result(subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=280))
    np.testing.assert_allclose(losses(body), losses(alone), rtol=0, atol=1e-5)
    assert body["held_out_after"] == pytest.approx(alone["held_out_after"], abs=1e-5)


def test_two_processes_learn_in_the_grid_what_one_does(pair: Pair, tmp_path: Path) -> None:
    """With micro-batches of one half of a step both add the same two gradients, so nothing is rounded to
    another integer."""
    recipe, wanted = tmp_path / "recipe.yaml", asked_recipe("6", open_checkpoint(pair.student))
    quick = Steps(moments="diagonal", rounding="nearest", tables="normal", token_weights="equal")
    recipe.write_text(replace(wanted, tokens=2048, steps=quick).text(), encoding="utf-8")
    flags = ("--quantization-aware", recipe, "--micro-batch", 2)
    one = [sys.executable, "-m", "rockledge", *command(pair, tmp_path / "one", *flags)]
    alone = result(subprocess.run(one, env=environment(), capture_output=True, text=True, timeout=280))
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    run += ["--master-port", str(free_port()), "-m", "rockledge", *command(pair, tmp_path / "two", *flags)]
    body = result(subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=280))
    assert (body["processes"], len(losses(body))) == (2, 12)
    np.testing.assert_allclose(losses(body), losses(alone), rtol=0, atol=1e-5)
    for name, value in alone["held_out_after"].items():
        assert body["held_out_after"][name] == pytest.approx(value, abs=1e-5)
    found, expected = open_artifact(tmp_path / "two"), open_artifact(tmp_path / "one")
    assert found.linears == expected.linears
    for name in expected.linears:
        np.testing.assert_array_equal(found.linear(name).codes, expected.linear(name).codes)
        np.testing.assert_allclose(found.linear(name).scale, expected.linear(name).scale, rtol=1e-5)
