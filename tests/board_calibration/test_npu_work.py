"""The NPU's costs: facts out of given seconds, and all of it on a virtual device with either driver."""

import json
import os
import subprocess
import sys

import pytest

from rockledge.board_calibration.npu_work import LARGE, NpuTimes, npu_facts
from rockledge_npu_lab.virtual.preload import environment
from rockledge_npu_lab.virtual.serve_device import VirtualNpu

MACS = LARGE[0] * LARGE[1] * LARGE[2]
TIMES = NpuTimes(
    driver="rknpu",
    version="0.9.8",
    cores=3,
    virtual=False,
    hz=1e9,
    macs=MACS,
    small=(120e-6, 100e-6, 140e-6),
    large=(120e-6 + MACS / 1e12, 100e-6 + MACS / 1e12, 140e-6 + MACS / 1e12),
    syncs={4096: (5e-6, 5e-6, 5e-6), 4 << 20: (5e-6 + 2e-4, 5e-6 + 2e-4, 5e-6 + 2e-4)},
)


def test_facts_out_of_seconds() -> None:
    found = npu_facts(TIMES)
    assert (found.driver, found.cores, found.virtual) == ("rknpu", 3, False)
    value = {name: one.value for name, one in found.facts.items()}
    assert value["npu_submit_seconds"] == pytest.approx(120e-6)
    assert found.facts["npu_submit_seconds"].spread == pytest.approx((100e-6, 130e-6))
    assert value["npu_int8_macs_per_cycle"] == pytest.approx(1000)
    assert value["npu_sync_call_seconds"] == pytest.approx(5e-6)
    assert value["cpu_cache_sync_bandwidth"] == pytest.approx(((4 << 20) - 4096) / 2e-4)
    assert (value["npu_hz"], value["npu_cores"]) == (1e9, 3)


def test_without_a_clock_there_is_no_rate() -> None:
    found = npu_facts(NpuTimes(**{**vars(TIMES), "hz": None})).facts
    assert "npu_hz" not in found
    assert "npu_int8_macs_per_cycle" not in found
    assert "npu_submit_seconds" in found


def test_a_large_job_that_was_faster_than_the_small_one_gives_no_nonsense() -> None:
    found = npu_facts(NpuTimes(**{**vars(TIMES), "large": TIMES.small})).facts
    assert 0 < found["npu_int8_macs_per_cycle"].value < 1e6


SCRIPT = """
import json, sys
from dataclasses import asdict
from rockledge.board_calibration.npu_work import npu_facts, npu_times
found = npu_times(2, None)
print(json.dumps(found if isinstance(found, str) else asdict(npu_facts(found))))
"""


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_a_virtual_device_is_measured_and_marked(driver: str) -> None:
    with VirtualNpu(driver) as npu:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment(npu.address, os.environ),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert (body["driver"], body["virtual"], body["cores"]) == (driver, True, 3)
    for name in ("npu_submit_seconds", "npu_sync_call_seconds", "cpu_cache_sync_bandwidth"):
        assert body["facts"][name]["value"] > 0
        assert body["facts"][name]["repeats"] == 2
    assert npu.summary().buffers_left == 0
    assert npu.summary().faults == 0


def test_a_driver_that_has_hung_boards_is_not_tried() -> None:
    with VirtualNpu("rknpu", version=(0, 9, 3)) as npu:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment(npu.address, os.environ),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "hung whole boards" in json.loads(done.stdout)
    assert npu.summary().jobs == 0
