"""Calls of both virtual drivers, and a product on each.

Structures are written out here from the fact sheet's offsets, so the drivers' own layouts are not believed.
"""

import struct
import time

import numpy as np
import pytest

from rockledge.npu.programs.tile_program import product_program
from rockledge_npu_lab.virtual.chip import Chip
from rockledge_npu_lab.virtual.device_faults import Schedule, parse_faults
from rockledge_npu_lab.virtual.device_memory import DriverError
from rockledge_npu_lab.virtual.rknpu import RknpuDriver
from rockledge_npu_lab.virtual.rocket import RocketDriver

ACTION, SUBMIT, CREATE, OLD_CREATE = 0xC0086440, 0xC0686441, 0xC0306442, 0xC0286442
MAP, DESTROY, SYNC = 0xC0106443, 0xC0106444, 0xC0206445
R_CREATE, R_SUBMIT, R_PREPARE, R_FINISH = 0xC0186440, 0x40186441, 0x40106442, 0x40086443
DRM_VERSION, GEM_CLOSE = 0xC0406400, 0x40086409
CACHED, TASKS = 0x403, 0x40B


def at(size, **fields):
    """Zeros with values at byte offsets: at(48, u4_8=..) puts an unsigned number of 4 bytes at byte 8."""
    body = bytearray(size)
    for name, value in fields.items():
        kind, offset = name.split("_")
        code = {"u4": "<I", "u8": "<Q", "s8": "<q"}[kind]
        struct.pack_into(code, body, int(offset), value)
    return bytes(body)


def refused(file, request, data):
    with pytest.raises(DriverError) as error:
        file.ioctl(request, data)
    return error.value.errno


def rknpu(faults=(), version=(0, 9, 8)):
    notes = []
    chip = Chip(Schedule(parse_faults({"faults": list(faults)})), note=notes.append)
    return RknpuDriver(chip, version).open(), chip, notes


def rocket(faults=()):
    chip = Chip(Schedule(parse_faults({"faults": list(faults)})))
    return RocketDriver(chip).open(), chip


def create(file, size=4096, flags=CACHED):
    """(handle, object, address, buffer) of a new buffer of the vendor's driver."""
    out = file.ioctl(CREATE, at(48, u4_4=flags, u8_8=size))
    handle, pointer, address = (
        struct.unpack_from(code, out, offset)[0] for code, offset in (("<I", 0), ("<Q", 16), ("<Q", 24))
    )
    return handle, pointer, address, file.buffer(handle)


def product_on(file):
    """Buffers of a product of ones, the tasks' object, and where its sums will be (in `shared`)."""
    a, b, c, words = (create(file) for _ in range(4))
    tasks = create(file, flags=TASKS)
    program = product_program(4, 32, 32)
    addresses = {"input": a[2], "weight": b[2], "output": c[2], "program": words[2]}
    stream = program.at(addresses).view(np.uint8)
    a[3].shared[:128] = b[3].shared[:1024] = 1
    words[3].shared[: stream.size] = stream
    task = at(40, u4_12=0x300, u4_24=program.body_words[0], u8_32=words[2])
    tasks[3].shared[:40] = np.frombuffer(task, np.uint8)
    for _, pointer, _, buffer in (a, b, c, words, tasks):
        file.ioctl(SYNC, at(32, u4_0=1, u8_8=pointer, u8_24=buffer.size))
    return c, tasks


def submit(tasks, **more):
    """A submit of one task on core 0; `more` overrides fields."""
    fields = {
        "u4_0": 5,
        "u4_4": 50,
        "u4_12": 1,
        "u8_24": tasks[1],
        "u4_56": 1,
        "u4_64": 0,
        "u4_68": 1,
        **more,
    }
    return at(104, **fields)


def rocket_buffer(file, size=4096):
    return file.buffer(struct.unpack_from("<I", file.ioctl(R_CREATE, at(24, u4_0=size)), 4)[0])


def rocket_create(file, size=4096):
    out = file.ioctl(R_CREATE, at(24, u4_0=size))
    handle, address = struct.unpack_from("<IQ", out, 4)
    return handle, address, file.buffer(handle)


def rocket_job(file, reads, writes, tasks):
    head = at(24, u8_0=4096, u4_8=1, u4_12=40)
    job = at(40, u4_24=len(tasks), u4_28=8, u4_32=len(reads), u4_36=len(writes))
    body = b"".join(struct.pack("<II", *task) for task in tasks)
    handles = struct.pack(f"<{len(reads) + len(writes)}I", *reads, *writes)
    return file.ioctl(R_SUBMIT, head + job + body + handles)


def prepare(file, handle, seconds=5.0):
    return file.ioctl(R_PREPARE, at(16, u4_0=handle, s8_8=time.monotonic_ns() + int(seconds * 1e9)))


def rocket_product(file):
    a, b, c, words = (rocket_create(file) for _ in range(4))
    program = product_program(4, 32, 32)
    stream = program.at({"input": a[1], "weight": b[1], "output": c[1], "program": words[1]}).view(np.uint8)
    a[2].shared[:128] = b[2].shared[:1024] = 1
    words[2].shared[: stream.size] = stream
    for handle, _, _ in (a, b, c, words):
        file.ioctl(R_FINISH, at(8, u4_0=handle))
    return a, b, c, words, (words[1], len(program.words))
