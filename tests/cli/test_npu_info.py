"""`rockledge npu info` without an NPU, with a virtual one, and with one that may not be used."""

import json
import os
import subprocess
import sys

import pytest

from rockledge_npu_lab.virtual.device_faults import parse_faults
from rockledge_npu_lab.virtual.preload import environment
from rockledge_npu_lab.virtual.serve_device import VirtualNpu


def ask(npu, *arguments):
    command = [sys.executable, "-m", "rockledge", "npu", "info", *arguments]
    return subprocess.run(
        command, env=environment(npu.address, os.environ), capture_output=True, text=True, timeout=60
    )


def test_no_npu_is_one_sentence_with_what_to_do(rockledge):
    done = rockledge("npu", "info", "--json")
    if done.json["usable"]:
        pytest.skip("this machine has an NPU")
    assert done.code == 1
    assert "there is no NPU here" in done.json["reason"]
    assert "npu emulate" in done.json["reason"]
    assert done.json["device"] is None


@pytest.mark.parametrize("driver, node", [("rknpu", "/dev/dri/renderD129"), ("rocket", "/dev/accel/accel0")])
def test_an_npu_is_described_and_tried(driver, node):
    with VirtualNpu(driver) as npu:
        done = ask(npu, "--json")
        shown = ask(npu)
    told = json.loads(done.stdout)
    assert (done.returncode, shown.returncode) == (0, 0)
    assert told["usable"]
    assert (told["device"]["driver"], told["device"]["node"], told["probe_runs"]) == (driver, node, 1)
    assert f"{driver} " in shown.stdout
    assert "right" in shown.stdout
    assert (told["programs_tried"], told["programs_wrong"]) == (6, [])
    assert (told["device"]["sram_bytes"], told["device"]["sram_free_bytes"]) == (0, 0)
    assert "none for the NPU" in shown.stdout


def test_system_sram_is_shown_where_the_kernel_gives_it_to_the_npu():
    """rknpu's actions 22 and 23 answer 0 in stock kernels, as above, and 956 KiB where the device tree has
    it (allbilly/rknpu_driver, rknpu_ioctl.h)."""
    with VirtualNpu("rknpu", sram_bytes=978_944) as npu:
        done = ask(npu)
    (line,) = (line for line in done.stdout.splitlines() if "system SRAM" in line)
    assert "956 KiB, 956 KiB free" in line


def test_an_old_driver_is_tried_only_when_asked():
    with VirtualNpu("rknpu", version=(0, 9, 3)) as npu:
        done = ask(npu, "--json")
    assert (npu.summary().jobs, json.loads(done.stdout)["usable"]) == (0, False)
    with VirtualNpu("rknpu", version=(0, 9, 3)) as npu:
        asked = ask(npu, "--json", "--probe")
    assert npu.summary().jobs > 0
    assert json.loads(asked.stdout)["probe_runs"] == 1


def test_a_dead_core_is_named():
    dead = {"kind": "dead_core", "core": 2, "how": "error"}
    with VirtualNpu("rknpu", parse_faults({"faults": [dead]})) as npu:
        done = ask(npu)
    assert done.returncode == 0
    assert "core 2" in done.stdout


def test_programs_that_are_wrong_are_named():
    wrong = {"kind": "wrong_rows", "every": 1, "at": 8}
    with VirtualNpu("rknpu", parse_faults({"faults": [wrong]})) as npu:
        done = ask(npu, "--json")
        told = json.loads(done.stdout)
    assert done.returncode == 0
    (said,) = told["programs_wrong"]
    assert "sums are wrong on core" in said


@pytest.mark.parametrize(
    "fault, words",
    [
        ({"kind": "denied", "times": 99}, ["group render", "usermod", "60-rockledge-npu.rules"]),
        ({"kind": "locked", "times": 99}, ["another process"]),
        ({"kind": "lost", "times": 99}, ["no core of the NPU", "did not end"]),
    ],
)
def test_why_it_cannot_be_used_is_said(fault, words):
    with VirtualNpu("rknpu", parse_faults({"faults": [fault]})) as npu:
        done = ask(npu, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert not told["usable"]
    for word in words:
        assert word in told["reason"]
