"""What faulty cores leave in memory, through both virtual drivers' calls: they all report success."""

import errno
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.npu_lab.virtual.driver_calls import (
    ACTION,
    R_FINISH,
    R_SUBMIT,
    SUBMIT,
    SYNC,
    TASKS,
    at,
    create,
    prepare,
    refused,
    rknpu,
    rocket,
    rocket_create,
    rocket_job,
    submit,
)

from rockledge.npu.layout import INT8, SUMS_IN_ATOM, pack_cube, pack_kernels, unpack_cube
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_search import DEFAULT_RATES, plan
from rockledge.npu.programs.tiling import Reuse
from rockledge_npu_lab.virtual.rocket import CoreScheduler

ROWS, TILES, COLUMNS, INPUTS = 12, 6, 32, 64
MARK = -(1 << 31)
DRIVERS = ("rknpu", "rocket")


class Chain:
    """A matmul of six row tiles as one chain, on either driver.

    `run` gives its sums, and the right ones, int32 [tiles, rows, columns].

    Before every job the CPU stores marks in all of the output.
    """

    def __init__(self, driver, faults=()):
        self.vendor = driver == "rknpu"
        self.file, self.chip = rknpu(faults)[:2] if self.vendor else rocket(faults)
        rates = replace(DEFAULT_RATES, cores=1)
        tiling = plan(ROWS * TILES, COLUMNS, INPUTS, rates=rates, tile_rows=ROWS, parts=1, stays=Reuse.NONE)
        (launch,) = compile_matmul(tiling).launches
        (self.chain,) = launch.chains
        assert len(self.chain.starts) == TILES
        make = create if self.vendor else rocket_create
        sizes = {**launch.sizes, "program": self.chain.size_bytes}
        assert max(sizes.values()) <= 4 * 4096
        self.buffers = {
            role: make(self.file, 4 * 4096) for role, size in sizes.items() if size or role == "program"
        }
        if self.vendor:
            self.tasks = create(self.file, flags=TASKS)
        self.addresses = {role: b[2 if self.vendor else 1] for role, b in self.buffers.items()}
        self.put("program", self.chain.at(self.addresses))

    def put(self, role, values):
        flat = values.reshape(-1).view(np.uint8)
        self.buffers[role][-1].shared[: flat.size] = flat

    def run(self, seed=0, core=0):
        random = np.random.default_rng(seed)
        a = random.integers(-128, 128, (TILES, ROWS, INPUTS)).astype(np.int8)
        b = random.integers(-128, 128, (COLUMNS, INPUTS)).astype(np.int8)
        self.put("input", np.concatenate([pack_cube(tile, INT8.atom) for tile in a]))
        self.put("weight", pack_kernels(b, INT8))
        self.put("output", np.full(TILES * ROWS * COLUMNS, MARK, np.int32))
        if self.vendor:
            self._submit_vendor(core)
        else:
            self._submit_mainline()
        flat = self.buffers["output"][-1].shared[: TILES * ROWS * COLUMNS * 4].view(np.int32)
        sums = np.stack(
            [unpack_cube(tile, ROWS, COLUMNS, SUMS_IN_ATOM) for tile in flat.reshape(TILES, -1).copy()]
        )
        return sums, (a.astype(np.int64) @ b.astype(np.int64).T).astype(np.int32)

    def _submit_vendor(self, core):
        pieces = zip(self.chain.starts, self.chain.body_words, strict=True)
        tasks = b"".join(
            at(40, u4_12=0x300, u4_24=body, u8_32=self.addresses["program"] + 8 * start)
            for start, body in pieces
        )
        self.tasks[3].shared[: len(tasks)] = np.frombuffer(tasks, np.uint8)
        for buffer in (*self.buffers.values(), self.tasks):
            self.file.ioctl(SYNC, at(32, u4_0=1, u8_8=buffer[1], u8_24=buffer[3].size))
        slots = {"u4_64": 0, "u4_68": 0, f"u4_{64 + 8 * core}": 0, f"u4_{68 + 8 * core}": TILES}
        out = self.file.ioctl(SUBMIT, submit(self.tasks, u4_4=2000, u4_12=TILES, u4_56=1 << core, **slots))
        self.elapsed_ns = struct.unpack_from("<q", out, 48)[0]
        output = self.buffers["output"]
        self.file.ioctl(SYNC, at(32, u4_0=2, u8_8=output[1], u8_24=output[3].size))

    def _submit_mainline(self):
        for handle, _, _ in self.buffers.values():
            self.file.ioctl(R_FINISH, at(8, u4_0=handle))
        output = self.buffers["output"][0]
        tasks = [
            (self.addresses["program"] + 8 * start, body + 4)
            for start, body in zip(self.chain.starts, self.chain.body_words, strict=True)
        ]
        reads = [buffer[0] for role, buffer in self.buffers.items() if role != "output"]
        rocket_job(self.file, reads, [output], tasks)
        prepare(self.file, output)


@pytest.mark.parametrize("driver", DRIVERS)
def test_without_faults_it_is_right(driver):
    sums, right = Chain(driver).run()
    assert (sums == right).all()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("program, missing", [(1, 0), (2, 1), (6, 5), (-1, 5), (99, 5)])
def test_one_program_of_a_chain_does_not_run(driver, program, missing):
    chain = Chain(driver, [{"kind": "skipped_program", "program": program, "at": 2}])
    for job in range(3):
        sums, right = chain.run(job)
        wrong = [tile for tile in range(TILES) if (sums[tile] != right[tile]).any()]
        assert wrong == [missing] * (job == 1)
        assert (sums[wrong] == MARK).all()
    assert (chain.chip.faults.happened, chain.chip.resets) == (1, 0)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("every, rows", [(3, 2), (1, 1), (2, 50)])
def test_the_last_rows_of_some_tiles_are_wrong(driver, every, rows):
    chain = Chain(driver, [{"kind": "wrong_rows", "every": every, "rows": rows, "times": 2}])
    twice = [chain.run(7) for _ in range(2)]
    for sums, right in twice:
        wrong = np.zeros((TILES, ROWS, COLUMNS), bool)
        wrong[every - 1 :: every, -rows:] = True
        assert ((sums != right) == wrong).all()
        assert wrong[every - 1, -1, -1]
        assert (sums != MARK).all()
    assert (twice[0][0] == twice[1][0]).all()
    sums, right = chain.run(7)
    assert (sums == right).all()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("bit", [0, 24, 31])
@pytest.mark.parametrize("program, tile", [(1, 0), (4, 3), (-1, 5)])
def test_a_bit_of_two_sums_of_a_row_is_wrong(driver, bit, program, tile):
    chain = Chain(driver, [{"kind": "flipped_bits", "bit": bit, "program": program, "at": 2}])
    for job in range(3):
        sums, right = chain.run(job)
        wrong = np.argwhere(sums != right)
        assert len(wrong) == 2 * (job == 1)
        assert all(list(place[:2]) == [tile, 0] for place in wrong)
        flipped = (sums ^ right)[sums != right].view(np.uint32)
        assert (flipped == 1 << bit).all()


@pytest.mark.parametrize("driver", DRIVERS)
def test_old_output_is_what_the_job_before_wrote(driver):
    """Marks included: the CPU's store is overwritten by what it was meant to replace."""
    chain = Chain(driver, [{"kind": "stale_output", "at": 3, "times": 2}])
    before = [chain.run(seed) for seed in range(2)][-1][0]
    for seed in (2, 3):
        sums, right = chain.run(seed)
        assert (sums == before).all()
        assert (sums != right).any()
    sums, right = chain.run(4)
    assert (sums == right).all()


@pytest.mark.parametrize("driver", DRIVERS)
def test_old_output_where_no_job_wrote_is_the_mark(driver):
    sums, _ = Chain(driver, [{"kind": "stale_output"}]).run()
    assert (sums == MARK).all()


def test_a_core_of_the_vendor_s_driver_is_dead():
    faults = [{"kind": "dead_core", "core": 1, "how": "nothing", "at": 2}]
    chain = Chain("rknpu", faults)
    ran = []
    for core in (1, 1, 0, 2, 1):
        sums, right = chain.run(core=core)
        ran.append(bool((sums == right).all()))
        assert ran[-1] or (sums == MARK).all()
    assert ran == [True, False, True, True, False]
    assert chain.chip.faults.happened == 2


@pytest.mark.parametrize(
    "fault, number, resets",
    [
        ({"kind": "dead_core", "core": 2}, errno.ETIMEDOUT, 1),
        ({"kind": "dead_core", "core": 2, "how": "error"}, errno.EIO, 0),
        ({"kind": "lost", "core": 2, "at": 2}, errno.ETIMEDOUT, 1),
    ],
)
def test_a_job_on_a_core_fails(fault, number, resets):
    chain = Chain("rknpu", [fault])
    sums, right = chain.run(core=0)
    assert (sums == right).all()
    chain.chip.closing.set()  # time passes at once
    slots = {"u4_68": 0, "u4_80": 0, "u4_84": TILES}
    assert refused(chain.file, SUBMIT, submit(chain.tasks, u4_12=TILES, u4_56=4, **slots)) == number
    assert chain.chip.resets == resets


def test_mainline_sends_jobs_to_the_core_with_the_least_to_do():
    alone = Chain("rocket", [{"kind": "dead_core", "core": 1, "how": "nothing"}])
    ran = []
    for seed in range(4):
        sums, right = alone.run(seed)
        ran.append(bool((sums == right).all()))
    # Its own file counts for the core it was on, so the next job finds another one empty.
    assert ran == [True, False, True, False]


def test_mainline_keeps_a_file_on_the_first_core_when_every_core_has_a_file():
    scheduler = CoreScheduler()
    places = [scheduler.place(None, False) for _ in range(3)]
    for core in places:
        scheduler.ended(core)
    assert places == [0, 1, 2]
    for _ in range(3):
        assert scheduler.place(0, False) == 0
        scheduler.ended(0)
    # Two at once stay on the first two cores, in whatever order they end.
    assert (scheduler.place(0, False), scheduler.place(1, False)) == (0, 1)


def test_a_job_within_a_submit_fails_and_the_rest_runs():
    """The kernel says nothing of it: the submit returns 0."""
    chain = Chain("rocket", [{"kind": "error", "errno": "ENOMEM", "at": 3}])
    chain.run()
    file, jobs, outputs = chain.file, b"", []
    for _ in range(3):
        words, output = rocket_create(file, 4 * 4096), rocket_create(file)
        stream = chain.chain.at({**chain.addresses, "program": words[1], "output": output[1]}).view(np.uint8)
        words[2].shared[: stream.size] = stream
        file.ioctl(R_FINISH, at(8, u4_0=words[0]))
        handles = [chain.buffers["input"][0], chain.buffers["weight"][0], words[0], output[0]]
        jobs += at(40, u4_24=1, u4_28=8, u4_32=3, u4_36=1)
        jobs += struct.pack("<II", words[1], chain.chain.body_words[0] + 4) + struct.pack("<4I", *handles)
        outputs.append(output)
    file.ioctl(R_SUBMIT, at(24, u8_0=4096, u4_8=3, u4_12=40) + jobs)
    for output in outputs:
        prepare(file, output[0])
    assert [bool(output[2].shared.any()) for output in outputs] == [True, False, True]


def test_the_vendor_s_driver_waits_up_to_three_times():
    chain = Chain("rknpu", [{"kind": "lost", "at": 1}, {"kind": "lost", "waits": 3, "at": 2}])
    took = []
    for _ in range(2):
        start = time.monotonic()
        assert refused(chain.file, SUBMIT, submit(chain.tasks, u4_4=60)) == errno.ETIMEDOUT
        took.append(time.monotonic() - start)
    assert took[0] >= 0.06
    assert took[1] >= 0.18
    assert chain.chip.resets == 2


def test_a_slow_clock_is_told_and_felt():
    products = ROWS * TILES * COLUMNS * INPUTS
    slow = Chain("rknpu", [{"kind": "slow_clock", "hertz": 10_000}])
    usual = Chain("rknpu")
    clocks, elapsed = [], []
    for chain in (slow, usual):
        start = time.monotonic()
        sums, right = chain.run()
        assert (sums == right).all()
        clocks.append(struct.unpack("<II", chain.file.ioctl(ACTION, struct.pack("<II", 2, 0)))[1])
        elapsed.append(chain.elapsed_ns)
        if chain is slow:
            assert time.monotonic() - start >= products / 1024 / 10_000
    assert clocks == [10_000, 1_000_000_000]
    assert elapsed == pytest.approx([products / 1024 / clock * 1e9 for clock in clocks], rel=1e-3, abs=1)


def test_a_clock_so_slow_that_mainline_ends_the_job():
    chain = Chain("rocket", [{"kind": "slow_clock", "hertz": 100}])
    chain.chip.closing.set()  # time passes at once
    chain.run()
    assert chain.chip.resets == 1
