"""A worker process with the virtual NPU's library, and orders to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from rockledge_npu_lab.virtual.device_faults import parse_faults
from rockledge_npu_lab.virtual.preload import environment
from rockledge_npu_lab.virtual.serve_device import VirtualNpu

ROOT = Path(__file__).parents[2]


class Worker:
    """A process that does what a module with orders can, by default `npu_worker`."""

    def __init__(self, python=sys.executable, variables=None, module="npu_worker"):
        """`variables`: the environment, by default one with the library of this machine."""
        if variables is None:
            variables = environment("", os.environ)
        self.process = subprocess.Popen(
            [python, "-m", f"tests.runtime.{module}"],
            cwd=ROOT,
            env={**variables, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def multiply(
        self, driver, faults=(), *, shapes=((20, 64, 96),), timeout_ms=600, emulated=None, more=None, **npu
    ):
        """Products on a fresh virtual NPU; returns what the worker says, and the NPU's summary. `more` is for
        the worker."""
        told = {
            "order": "multiply",
            "driver": driver,
            "shapes": shapes,
            "timeout_ms": timeout_ms,
            **(more or {}),
        }
        return self.tell(told, emulated or driver, faults, **npu)

    def call_badly(self, driver, node):
        """Calls with arguments that no sound program has."""
        return self.tell({"order": "call_badly", "node": node}, driver)

    def tell(self, order, driver, faults=(), **more):
        """An order, with a fresh virtual NPU of `driver`."""
        with VirtualNpu(driver, parse_faults({"faults": list(faults)}), **more) as npu:
            self.process.stdin.write(json.dumps({**order, "address": npu.address}) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or "null")
            assert answer is not None, f"the worker ended with {self.process.wait(timeout=30)}"
            assert not (isinstance(answer, dict) and "raised" in answer), answer["raised"]
            npu.drain()
            return answer, npu.summary()

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0
        self.process.stdout.close()
