"""What a program does with the NPU, in a process of its own: reads orders from stdin, a JSON object a line.

A process takes a preloaded library from its start on, and starting one for each test would take most of their
time; so one of these serves many tests, each with a virtual NPU of its own.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from rockledge.errors import NpuError
from rockledge.npu.matmul import compile_matmul
from rockledge.npu.preload import ADDRESS_VARIABLE
from rockledge.npu.tile_search import plan
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.npu_launch import LaunchRunner, prove


def multiply(driver, shapes, timeout_ms, probe=True, seed=0):
    """Products on the NPU for as long as it lives: which were right, and what it said when it was not."""
    before = held()
    errors, right, about = [], [], None
    device = None
    try:
        device = NpuDevice(driver)
        if probe:
            prove(device, timeout_ms)
        for m, n, k in shapes:
            random = np.random.default_rng(seed)
            a = random.integers(-128, 128, (m, k)).astype(np.int8)
            b = random.integers(-128, 128, (n, k)).astype(np.int8)
            c = compile_matmul(plan(m, n, k)).multiply(a, b, LaunchRunner(device, timeout_ms).run)
            right.append(bool((c == a.astype(np.float64) @ b.astype(np.float64).T).all()))
    except NpuError as error:
        errors.append(str(error))
    if device is not None:
        about = vars(device.describe())
        device.close()
    return {"right": right, "errors": errors, "about": about, "held": [before, held()]}


def held():
    """Open descriptors and mapped device memory; the library keeps connections, which do not count."""
    descriptors = [
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if name.isdigit() and Path(f"/proc/self/fd/{name}").is_symlink()
    ]
    files = [name for name in descriptors if not name.startswith(("socket:", "/proc/"))]
    mappings = [line for line in Path("/proc/self/maps").read_text().splitlines() if "npu-buffer" in line]
    return [len(files), len(mappings)]


def main():
    for line in sys.stdin:
        order = json.loads(line)
        os.environ[ADDRESS_VARIABLE] = order.pop("address")
        print(json.dumps(multiply(**order)), flush=True)


if __name__ == "__main__":
    main()
