"""The virtual drivers call by call: what they answer, what they refuse, and that no argument ends them."""

import errno
import struct
import time
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu_lab.virtual.driver_calls import (
    ACTION,
    CACHED,
    CREATE,
    DESTROY,
    DRM_VERSION,
    GEM_CLOSE,
    MAP,
    OLD_CREATE,
    R_CREATE,
    R_FINISH,
    R_PREPARE,
    R_SUBMIT,
    SUBMIT,
    SYNC,
    at,
    create,
    prepare,
    product_on,
    refused,
    rknpu,
    rocket,
    rocket_buffer,
    rocket_create,
    rocket_job,
    rocket_product,
    submit,
)

from rockledge.npu.stream import build
from rockledge_npu_lab.virtual.device_memory import DriverError


def test_the_vendor_driver_computes_and_caches():
    file, chip, _ = rknpu()
    c, tasks = product_on(file)
    out = file.ioctl(SUBMIT, submit(tasks))
    assert struct.unpack_from("<I", out, 16) == (1,)
    sums = c[3].shared[:512].view(np.int32)
    assert (sums == 0).all()  # not synced yet: the CPU sees its cache
    file.ioctl(SYNC, at(32, u4_0=2, u8_8=c[1], u8_24=512))
    assert (sums == 32).all()
    assert chip.programs == 1


def test_what_the_vendor_driver_says_of_itself():
    file, _, _ = rknpu(version=(0, 9, 7))
    assert struct.unpack("<II", file.ioctl(ACTION, struct.pack("<II", 1, 0)))[1] == 907
    out = file.ioctl(DRM_VERSION, bytes(64))
    assert struct.unpack_from("<iii", out) == (0, 9, 7)
    assert out[64:].startswith(b"rknpu")


def test_old_versions_take_a_shorter_structure():
    file, _, _ = rknpu(version=(0, 9, 5))
    out = file.ioctl(OLD_CREATE, at(40, u4_4=CACHED, u8_8=5000))
    assert len(out) == 40
    assert struct.unpack_from("<Q", out, 8) == (8192,)
    # A longer one is cut by the kernel's DRM layer, and comes back as long.
    assert len(file.ioctl(CREATE, at(48, u4_4=CACHED, u8_8=4096))) == 48


def test_addresses_stay_below_4_gib_and_apart():
    for downward in (True, False):
        file = rknpu()[0] if downward else rocket()[0]
        buffers = [create(file, 12288)[3] if downward else rocket_buffer(file, 12288) for _ in range(5)]
        spans = sorted((b.address, b.end) for b in buffers)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        assert spans[-1][1] < 1 << 32
        assert (buffers[0].address > buffers[1].address) == downward
        file.close()


@pytest.mark.parametrize(
    "change, number",
    [
        ({"u4_0": 4}, errno.EINVAL),  # no PC mode
        ({"u4_0": 5 | 16}, errno.EINVAL),  # a fence
        ({"u4_12": 0}, errno.EINVAL),  # no tasks
        ({"u4_56": 8}, errno.EINVAL),  # a fourth core
        ({"u4_56": 5}, errno.EINVAL),  # cores 0 and 2, which cannot be committed
        ({"u4_56": 6}, errno.EINVAL),
        ({"u4_56": 7}, errno.EFAULT),  # three cores without tasks: the kernel dies
        ({"u8_24": 1 << 40}, errno.EFAULT),  # no object
        ({"u4_68": 1000}, errno.EFAULT),  # beyond the task array
    ],
)
def test_submits_that_the_vendor_driver_refuses(change, number):
    file, chip, _ = rknpu()
    _, tasks = product_on(file)
    assert refused(file, SUBMIT, submit(tasks, **change)) == number
    assert chip.crashes == (number == errno.EFAULT)
    assert chip.resets == 0


def test_tasks_outside_the_kernel_s_mapping_and_foreign_objects_are_crashes():
    file, chip, notes = rknpu()
    c, _ = product_on(file)
    assert refused(file, SUBMIT, submit(c)) == errno.EFAULT
    assert refused(file, SYNC, at(32, u4_0=1, u8_8=c[1], u8_16=1, u8_24=c[3].size)) == errno.EFAULT
    assert chip.crashes == len(notes) == 2
    assert refused(file, SYNC, at(32, u4_0=1, u8_8=create(file, flags=1)[1], u8_24=1)) == errno.EINVAL
    assert refused(file, MAP, at(16, u4_0=99)) == errno.ENOENT


def test_a_buffer_is_destroyed_by_its_handle_alone():
    """The object in MEM_DESTROY is never looked at."""
    file, chip, _ = rknpu()
    one, other = create(file), create(file)
    file.ioctl(DESTROY, at(16, u4_0=one[0], u8_8=1 << 40))
    assert refused(file, MAP, at(16, u4_0=one[0])) == errno.ENOENT
    file.ioctl(DESTROY, at(16, u4_0=other[0], u8_8=one[1]))
    assert refused(file, DESTROY, at(16, u4_0=other[0])) == errno.EINVAL
    assert (chip.crashes, chip.allocator.live) == (0, 0)


def test_a_program_that_hangs_times_out_and_is_named():
    file, chip, notes = rknpu()
    _, tasks = product_on(file)
    tasks[3].shared[:40].view("<u8")[4] += 8  # the program begins in its middle
    assert refused(file, SUBMIT, submit(tasks)) == errno.ETIMEDOUT
    assert chip.resets == 1
    assert "hangs" in notes[0]


def test_mainline_computes_and_caches():
    file, chip = rocket()
    a, b, c, words, task = rocket_product(file)
    assert a[1] == 0  # the first buffer has address 0
    rocket_job(file, [a[0], b[0], words[0]], [c[0]], [task, task])
    prepare(file, c[0])
    assert (c[2].shared[:512].view(np.int32) == 32).all()
    assert chip.programs == 2
    file.close()


def test_mainline_skips_a_job_that_names_a_buffer_twice():
    file, chip = rocket()
    a, _, c, _, task = rocket_product(file)
    rocket_job(file, [a[0], c[0]], [c[0]], [task])
    prepare(file, c[0])
    assert (c[2].shared == 0).all()
    assert chip.programs == 0
    file.close()


def test_mainline_refuses_what_it_documents():
    file, _ = rocket()
    a = rocket_create(file)
    assert refused(file, R_PREPARE, at(16, u4_0=99, s8_8=1 << 62)) == errno.ENOENT
    assert refused(file, R_PREPARE, at(16, u4_0=a[0], u4_4=1)) == errno.EINVAL
    assert refused(file, R_FINISH, at(8, u4_0=a[0], u4_4=1)) == errno.EINVAL
    assert refused(file, R_SUBMIT, at(24, u4_8=1, u4_12=40, u8_16=1)) == errno.EINVAL
    assert refused(file, R_SUBMIT, at(24, u4_8=1, u4_12=39)) == errno.EINVAL
    file.ioctl(R_SUBMIT, at(24, u8_16=1))  # no jobs: nothing else is looked at
    file.close()


def test_mainline_passes_over_jobs_that_it_does_not_take():
    file, chip = rocket()
    a, b, c, words, task = rocket_product(file)
    for reads, tasks in (([99], [task]), ([a[0]], []), ([a[0]], [(0, 0)]), ([a[0], a[0]], [task])):
        rocket_job(file, reads, [c[0]], tasks)
        prepare(file, c[0])
    assert (chip.jobs, chip.programs) == (0, 0)
    rocket_job(file, [a[0], b[0], words[0]], [c[0]], [task])
    prepare(file, c[0])
    assert (c[2].shared[:512].view(np.int32) == 32).all()
    file.close()


def test_a_deadline_that_has_passed_is_busy_and_one_that_comes_is_a_timeout():
    file, _ = rocket([{"kind": "late", "seconds": 0.3}])
    a, b, c, words, task = rocket_product(file)
    rocket_job(file, [a[0], b[0], words[0]], [c[0]], [task])
    assert refused(file, R_PREPARE, at(16, u4_0=c[0])) == errno.EBUSY
    with pytest.raises(DriverError) as error:
        prepare(file, c[0], 0.05)
    assert error.value.errno == errno.ETIMEDOUT
    prepare(file, c[0])
    assert (c[2].shared[:512].view(np.int32) == 32).all()
    file.close()


requests = st.sampled_from(
    (
        *(ACTION, SUBMIT, CREATE, OLD_CREATE, MAP, DESTROY, SYNC, DRM_VERSION, GEM_CLOSE),
        *(R_CREATE, R_SUBMIT, R_PREPARE, R_FINISH),
    )
) | st.integers(0, (1 << 32) - 1)
words = (
    st.integers(0, 8)
    | st.sampled_from([1 << 31, (1 << 32) - 1, 40, 8, 0x403, 4096])
    | st.integers(0, 2**32 - 1)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(requests, st.lists(words, max_size=40)), max_size=12), st.booleans())
def test_no_argument_ends_a_driver(calls, vendor):
    """Whatever is asked, the answer is an errno or a structure, and a sound job works afterwards."""
    file, chip = rknpu()[:2] if vendor else rocket()
    chip.closing.set()  # time passes at once
    for request, values in calls:
        data = struct.pack(f"<{len(values)}I", *values)
        if len(data) >= 16 and request == CREATE:
            data = data[:8] + struct.pack("<Q", values[2] % (1 << 26)) + data[16:]
        if request == R_CREATE and values:
            data = struct.pack("<I", values[0] % (1 << 26)) + data[4:]
        if request == R_PREPARE and len(data) >= 16:
            data = data[:8] + struct.pack("<q", time.monotonic_ns()) + data[16:]
        with suppress(DriverError):
            assert isinstance(file.ioctl(request, data), bytes)
    if vendor:
        _, tasks = product_on(file)
        file.ioctl(SUBMIT, submit(tasks))
    else:
        a, b, c, code, task = rocket_product(file)
        rocket_job(file, [a[0], b[0], code[0]], [c[0]], [task])
        prepare(file, c[0])
    file.close()
    assert chip.allocator.live == 0
    assert chip.allocator.used == 0


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 4096))
def test_no_program_ends_the_device(noise, at_word):
    """Random words where a program should be: the job hangs or runs, and never leaves the buffers."""
    file, chip, _ = rknpu()
    chip.closing.set()
    _, tasks = product_on(file)
    address = int(tasks[3].shared[:40].view("<u8")[4])
    code = next(b for b in file._driver.objects.values() if b.address == address)
    where = at_word % 900
    code.device[where : where + len(noise)] = np.frombuffer(noise, np.uint8)
    with suppress(DriverError):
        file.ioctl(SUBMIT, submit(tasks))
    file.close()


def test_an_empty_program_hangs():
    file, _, notes = rknpu()
    _, tasks = product_on(file)
    address = int(tasks[3].shared[:40].view("<u8")[4])
    code = next(b for b in file._driver.objects.values() if b.address == address)
    stream = build([], 0).at({}).view(np.uint8)
    code.device[: stream.size] = stream
    assert refused(file, SUBMIT, submit(tasks)) == errno.ETIMEDOUT
    assert notes
