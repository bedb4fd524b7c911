"""What a program does with the NPU, in a process of its own: reads orders from stdin, a JSON object a line.

A process takes a preloaded library from its start on, and starting one for each test would take most of their
time; so one of these serves many tests, each with a virtual NPU of its own.
"""

import ctypes
import json
import mmap
import os
import select
import struct
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace

import numpy as np
from tests.runtime import npu_offloading
from tests.runtime.held import held

from rockledge.errors import NpuError
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_search import DEFAULT_RATES, plan
from rockledge.npu.virtual_npu import ADDRESS_VARIABLE
from rockledge.runtime.npu_cores import AWAKE_MS, prove
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.npu_launch import LaunchRunner


def multiply(driver, shapes, timeout_ms, probe=True, seed=0, idle_ms=AWAKE_MS, pause=0.0):
    """Products on the NPU for as long as it lives: which were right, and what it said when it was not.

    `pause` in seconds before each.
    """
    before = held()
    errors, right, about = [], [], None
    device = None
    try:
        device = NpuDevice(driver)
        if probe:
            prove(device, timeout_ms, idle_ms)
        rates = replace(DEFAULT_RATES, cores=device.describe().cores)
        for m, n, k in shapes:
            time.sleep(pause)
            random = np.random.default_rng(seed)
            a = random.integers(-128, 128, (m, k)).astype(np.int8)
            b = random.integers(-128, 128, (n, k)).astype(np.int8)
            c = compile_matmul(plan(m, n, k, rates=rates)).multiply(
                a, b, LaunchRunner(device, timeout_ms).run
            )
            right.append(bool((c == a.astype(np.float64) @ b.astype(np.float64).T).all()))
    except NpuError as error:
        errors.append(str(error))
    if device is not None:
        about = vars(device.describe())
        device.close()
    return {"right": right, "errors": errors, "about": about, "held": [before, held()]}


def close(driver, shapes, timeout_ms, wait=True, rest=0.0):
    """How many seconds closing takes after these products, of which the last may still run."""
    device = NpuDevice(driver)
    with suppress(NpuError):
        for m, n, k in shapes:
            a, b = np.ones((m, k), np.int8), np.ones((n, k), np.int8)
            device.wait = NpuDevice.wait.__get__(device) if wait else lambda: None
            compile_matmul(plan(m, n, k)).multiply(a, b, LaunchRunner(device, timeout_ms).run)
    time.sleep(rest)
    start = time.monotonic()
    device.close()
    return {"seconds": time.monotonic() - start}


def call_badly(node):
    """System calls with bad addresses and foreign descriptors, and what poll and fork do."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

    def ioctl(descriptor, request, argument):
        """The errno of a call with a structure, or with an address."""
        room = (
            ctypes.create_string_buffer(argument, len(argument)) if isinstance(argument, bytes) else argument
        )
        return 0 if libc.ioctl(descriptor, request, room) == 0 else ctypes.get_errno()

    version, create, unmapped = 0xC0406400, 0xC0186440, 0x1000
    descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    plain = os.open("/dev/null", os.O_RDWR)
    # A submit whose jobs lie nowhere, and one whose job is no job.
    nowhere = struct.pack("<QIIQ", unmapped, 1, 40, 0)
    other = struct.pack("<QIIQ", id(nowhere), 1, 40, 0)
    found = {
        "bad address": ioctl(descriptor, create, unmapped),
        "no address": ioctl(descriptor, version, None),
        "jobs nowhere": ioctl(descriptor, 0x40186441, nowhere),
        "no job": ioctl(descriptor, 0x40186441, other),
        "other letter": ioctl(descriptor, 0x40086501, bytes(8)),
        "no device": ioctl(plain, create, bytes(24)),
    }
    try:
        mmap.mmap(descriptor, 4096, offset=7 << 32)
    except OSError as error:
        found["no buffer"] = error.errno
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(plain, select.POLLOUT)
    found["ready"] = [number == plain for number, _ in poll.poll(1000)]
    poll.unregister(plain)
    found["silent"] = poll.poll(10)
    child = os.fork()
    if child == 0:  # asks on connections of its own
        os._exit(ioctl(descriptor, version, bytes(64)))
    found["child"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(plain)
    os.close(descriptor)
    found["closed"] = ioctl(descriptor, create, bytes(24))
    return found


ORDERS = {"multiply": multiply, "close": close, "call_badly": call_badly, **npu_offloading.ORDERS}


def main():
    for line in sys.stdin:
        order = json.loads(line)
        os.environ[ADDRESS_VARIABLE] = order.pop("address")
        does = ORDERS[order.pop("order")]
        try:
            answer = does(**order)
        except Exception:  # told, so that the tests behind this one still have their worker
            answer = {"raised": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
