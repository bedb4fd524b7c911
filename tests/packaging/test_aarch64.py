"""The core and the wheel on an emulated Cortex-A76; `make test-arm` builds what these need and runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.packaging.conftest import ROOT
from tests.runtime.virtual_npu import Worker

from rockledge import Model

pytestmark = pytest.mark.arm

CACHE = Path(os.environ.get("ROCKLEDGE_CACHE", Path.home() / ".cache" / "rockledge"))
PYTHON = CACHE / "arm" / "python"
BUILD = ROOT / "build" / "arm"
VIRTUAL_NPU = ROOT / "build" / "arm-npu-lab" / "librockledge_virtual_npu.so"
PROMPT = "the quick brown fox"


def arm_environment(path: str, **more: str) -> dict[str, str]:
    """The environment of an emulated run whose import path begins with `path`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    return {**kept, "ARM_PYTHONPATH": path, **more}


def test_kernels_agree_in_the_self_check() -> None:
    emulator = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", "/usr/aarch64-linux-gnu"]
    subprocess.run([*emulator, BUILD / "rockledge_selfcheck"], check=True)


@pytest.mark.timeout(900)
def test_native_tests_pass() -> None:
    """The tests of tests/native, which hold every kernel against the NumPy specification bit for bit."""
    library = {"ROCKLEDGE_LIBRARY": str(BUILD / "librockledge.so")}
    environment = arm_environment(f"{ROOT}{os.pathsep}{ROOT / 'src'}", **library)
    tests = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "tests/native"]
    subprocess.run(tests, cwd=ROOT, check=True, env=environment)


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    """A process with the device and the preloaded library of the aarch64 build; its NPU is this machine's."""
    variables = {
        "ROCKLEDGE_LIBRARY": str(BUILD / "librockledge.so"),
        "QEMU_SET_ENV": f"LD_PRELOAD={VIRTUAL_NPU}",
    }
    module = getattr(request, "param", "npu_worker")
    emulated = arm_environment(f"{ROOT}{os.pathsep}{ROOT / 'src'}", **variables)
    worker = Worker(str(PYTHON), emulated, module)
    yield worker
    worker.close()


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_the_npu_multiplies_through_its_drivers(worker: Worker, driver: str) -> None:
    shapes, fault = ((1, 32, 32), (100, 200, 1536)), {"kind": "lost", "at": 2 if driver == "rknpu" else 4}
    for faults in ((), (fault,)):
        answer, summary = worker.multiply(driver, faults, shapes=shapes, timeout_ms=3000)
        assert (answer["errors"], answer["right"]) == ([], [True, True])
        assert answer["about"]["faults"] == summary.faults == len(faults)
        assert (summary.files_left, summary.buffers_left) == (0, 0)


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_linears_on_the_npu_have_the_floats_of_the_cpu(worker: Worker, driver: str, planes: int) -> None:
    order = {"order": "prefill", "driver": driver, "planes": planes, "threads": 2, "timeout_ms": 3000}
    cut = {"steps": [3, 12, 20], "columns": 64, "parts": 2, "sums": "HOST", "slots": 3}
    gone = {"kind": "gone", "at": 20}
    for faults in ((), (gone,)):
        answer, summary = worker.tell({**order, **cut}, driver, faults)
        assert answer["equal"] == [True] * 4
        assert (answer["work"]["stopped"] is None) == (not faults)
        assert answer["work"]["blocks"] > 0
        assert summary.crashes == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("worker", ["engine_worker"], indirect=True)
@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_prompts_read_on_the_npu_have_the_logits_of_the_same_processor(
    worker: Worker, driver: str, toy: Path
) -> None:
    order = {"order": "ask", "path": str(toy), "npu": "require", "npu_rows": 16, "ctx": 256}
    answer, summary = worker.tell({**order, "lengths": [9, 40, 100], "tokens": 3}, driver)
    assert (answer["error"], answer["same"], answer["answered"]) == (None, [True] * 3, [True] * 3)
    npu = answer["npu"]
    assert (npu["driver"], npu["rows"], npu["faults"], npu["fallbacks"]) == (driver, 2 * (40 + 100), 0, 0)
    before, after = answer["held"]
    assert after == before
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)


def test_the_wheel_generates(build_wheels: Callable[[str], list[Path]], toy: Path, tmp_path: Path) -> None:
    (wheel, _), site = build_wheels("aarch64"), tmp_path / "site"
    # pip checks the wheel's tag against the platform it is told.
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
    platform = ["--platform", "manylinux_2_28_aarch64", "--python-version", "3.11", "--implementation", "cp"]
    subprocess.run([*pip, *platform, "--target", site, wheel], check=True)

    run = [PYTHON, ROOT / "tests/packaging/generate.py", toy, PROMPT, "6", tmp_path / "logits.npy"]
    environment = arm_environment(str(site))
    environment.pop("ROCKLEDGE_LIBRARY", None)
    done = subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    answer = json.loads(done.stdout)
    assert (answer["machine"], answer["kernel"], answer["torch"]) == ("aarch64", "neon", False)
    assert Path(answer["package"]).is_relative_to(site)
    # Integer sums are the same on both processors; floats in between may differ in their last bits.
    with Model.load(toy, threads=1) as model:
        here = model.engine.logits(model.tokens(PROMPT))
        assert answer["text"] == model.generate(PROMPT, max_tokens=6)
    there = np.load(tmp_path / "logits.npy")
    assert np.abs(there - here).max() < 1e-3 * np.abs(here).max()
