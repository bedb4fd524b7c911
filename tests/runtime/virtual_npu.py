"""A worker process with the virtual NPU's library, and orders to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from rockledge.npu.device_faults import parse_faults
from rockledge.npu.preload import environment
from rockledge.npu.serve_device import VirtualNpu

ROOT = Path(__file__).parents[2]


class Worker:
    """A process that does what `npu_worker` can."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.runtime.npu_worker"]
        variables = {**environment("", os.environ), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def multiply(self, driver, faults=(), *, shapes=((20, 64, 96),), timeout_ms=200, emulated=None, **order):
        """Products on a fresh virtual NPU; returns what the worker says, and the NPU's summary."""
        with VirtualNpu(emulated or driver, parse_faults({"faults": list(faults)}), **order) as npu:
            told = {"address": npu.address, "driver": driver, "shapes": shapes, "timeout_ms": timeout_ms}
            self.process.stdin.write(json.dumps(told) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            npu.drain()
            return answer, npu.summary()

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0
        self.process.stdout.close()
