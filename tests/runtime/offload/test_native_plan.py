"""A program's linears on a virtual NPU: to the bit the floats of the CPU, whatever the plan or its faults."""

import numpy as np
import pytest
from tests.native.one_op import supported_kernels
from tests.runtime.virtual_npu import Worker

DRIVERS = ("rknpu", "rocket")
LANES = 3


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def prefill(worker, driver, steps, faults=(), **fields):
    """Steps that all agree with the CPU, and with nothing left behind."""
    order = {"order": "prefill", "driver": driver, "steps": steps, **fields}
    answer, summary = worker.tell(order, driver, faults)
    assert answer["equal"] == [True] * (len(steps) + 1)
    before, after = answer["held"]
    assert after == before
    assert (summary.files_left, summary.crashes) == (0, 0)
    if not any(fault["kind"] == "gone" for fault in faults):
        assert summary.buffers_left == 0
    return answer


def nothing_failed(answer):
    assert (answer["work"]["fallbacks"], answer["work"]["stopped"]) == (0, None)
    assert (answer["about"]["faults"], answer["about"]["resets"]) == (0, 0)


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("driver", DRIVERS)
def test_every_number_of_rows_gives_the_floats_of_the_cpu(worker, driver, planes):
    steps = [4, *range(5, 21), 21]
    answer = prefill(worker, driver, steps, planes=planes, columns=96, threads=2)
    nothing_failed(answer)
    assert answer["work"]["steps"] == 16
    assert answer["work"]["rows"] == sum(range(5, 21))
    assert answer["blocks"][0] == 0  # fewer rows than the threshold
    assert answer["blocks"][-1] == answer["blocks"][-2] == 16 * answer["blocks_of_step"]


@pytest.mark.parametrize("sums, parts", [("HOST", 3), ("CHAIN", 2)])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("driver", DRIVERS)
def test_parts_of_the_inputs_are_added_by_either_side(worker, driver, planes, sums, parts):
    answer = prefill(worker, driver, [6, 18], planes=planes, sums=sums, parts=parts, columns=64, threads=3)
    nothing_failed(answer)
    assert answer["weights"]


@pytest.mark.parametrize("kernel", supported_kernels())
@pytest.mark.parametrize("driver", DRIVERS)
def test_weights_lie_as_the_layouts_say_and_are_unpacked_once(worker, driver, kernel):
    answer = prefill(worker, driver, [8, 20, 13], kernel=kernel, threads=4)
    nothing_failed(answer)
    assert answer["weights"]
    assert answer["work"]["unpacked_bytes"] == answer["weight_bytes"]
    assert answer["work"]["blocks"] == 3 * answer["blocks_of_step"]


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("driver", DRIVERS)
def test_codes_lie_as_the_layouts_say(worker, driver, planes):
    answer, _ = worker.tell({"order": "last_input", "driver": driver, "planes": planes}, driver)
    assert answer["right"] == [True] * (1 if driver == "rknpu" else LANES)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("driver", DRIVERS)
def test_blocks_take_turns_in_few_slots(worker, driver, slots):
    answer = prefill(worker, driver, [8, 8, 8], slots=slots, threads=2)
    nothing_failed(answer)
    # Every block once a step, and at the end of the last one already some of the next.
    steps = answer["work"]["unpacked_bytes"] / answer["weight_bytes"]
    assert 3 <= steps < 3.5


@pytest.mark.parametrize("lanes, columns", [(1, 32), (1, 256), (2, 64)])
@pytest.mark.parametrize("driver", DRIVERS)
def test_other_numbers_of_lanes(worker, driver, lanes, columns):
    nothing_failed(prefill(worker, driver, [7, 20], lanes=lanes, columns=columns))


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_linear_that_runs_without_its_producer_stays_on_the_cpu(worker, driver):
    everything, cut_in_two = [[0, -1]], [[0, 3], [3, 11], [11, -1]]
    answer, _ = worker.tell({"order": "in_pieces", "driver": driver, "pieces": everything}, driver)
    blocks = answer["blocks"]
    assert answer["equal"]
    answer, _ = worker.tell({"order": "in_pieces", "driver": driver, "pieces": cut_in_two}, driver)
    assert answer["equal"]
    # The first linear (three blocks) was cut off from what quantises for it; 11 begins with its own.
    assert answer["blocks"] == blocks - 3


# Lanes of the blocks of a layer, 32 columns each: 197 columns, 80, 288 and 80.
BLOCKS = (3, 3, 1, 3, 3, 3, 3, 3)


def job(driver, number):
    """The job as drivers count them, of block `number` from 0; before it are
    those that prove the cores: each alone, then all, then all as the probe."""
    if driver == "rknpu":
        return 1 + LANES + 2 + number
    return 1 + 3 * LANES + sum(BLOCKS[i % len(BLOCKS)] for i in range(number))


# Blocks in the middle of a linear, its first, its last, and those of the second step.
@pytest.mark.parametrize("block", [0, 1, 2, 3, 5, 8, 15, 17])
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_a_failed_device_leaves_the_cpu_does(worker, driver, block):
    fault = {"kind": "error", "errno": "EIO", "at": job(driver, block), "times": 1000}
    answer = prefill(worker, driver, [8, 20, 3, 8], [fault], threads=2)
    assert (answer["work"]["fallbacks"], answer["work"]["blocks"]) == (1, block)
    assert "was given up" in answer["work"]["stopped"]
    assert answer["about"]["failed"]


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("sums", ["HOST", "CHAIN"])
def test_a_fallback_reads_back_any_layout(worker, planes, sums):
    for driver in DRIVERS:
        fault = {"kind": "error", "errno": "EIO", "at": job(driver, 5), "times": 1000}
        answer = prefill(worker, driver, [18], [fault], planes=planes, sums=sums, parts=2, tile_rows=8)
        assert answer["work"]["fallbacks"] == 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "fault", [{"kind": "lost"}, {"kind": "skipped"}, {"kind": "error", "errno": "EINVAL"}, {"kind": "wrong"}]
)
def test_a_fault_that_a_reset_mends_is_none_of_the_programs_business(worker, driver, fault):
    faults = [{**fault, "at": 1}] if fault["kind"] == "wrong" else [{**fault, "at": job(driver, 4)}]
    if fault["kind"] == "wrong":  # the first job behind a reset, so there has to be one
        faults.append({"kind": "skipped", "at": job(driver, 4)})
    answer = prefill(worker, driver, [8, 20], faults, threads=2, timeout_ms=400)
    assert (answer["work"]["fallbacks"], answer["work"]["stopped"]) == (0, None)
    assert answer["work"]["blocks"] == 2 * answer["blocks_of_step"]
    assert answer["about"]["resets"] >= 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", ["lost", "skipped", "gone"])
def test_a_device_that_goes_is_left_in_the_middle_of_a_step(worker, driver, kind):
    fault = {"kind": kind, "at": job(driver, 6), "times": 1 if kind == "gone" else 1000}
    answer = prefill(worker, driver, [8, 20], [fault], threads=2, timeout_ms=300)
    assert answer["work"]["fallbacks"] == 1
    assert answer["work"]["stopped"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_plans_that_do_not_fit_are_refused(worker, driver):
    answer, _ = worker.tell({"order": "refusals", "driver": driver}, driver)
    for name, (words, said) in answer["found"].items():
        assert said is not None, f"{name} was accepted"
        assert words in said, name
    assert answer["equal"]
    assert answer["blocks"] > 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_program_keeps_what_it_uses(worker, driver):
    answer, _ = worker.tell({"order": "keeping", "driver": driver}, driver)
    release, unload, other = answer["said"]
    assert "uses buffer" in release
    assert "is used" in unload
    assert "another program" in other
    assert answer["equal"]
    assert answer["blocks"] > 0
    before, after = answer["held"]
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("block", range(6))
@pytest.mark.parametrize("driver", DRIVERS)
def test_random_faults_and_plans_end_with_the_floats_of_the_cpu(worker, driver, block):
    kinds = ("lost", "skipped", "late", "error", "busy", "gone")
    for seed in range(20 * block, 20 * block + 20):
        random = np.random.default_rng(seed)
        faults = []
        for kind in random.choice(kinds, int(random.integers(0, 4))):
            more = {"late": {"seconds": 0.05}, "busy": {"seconds": 0.05}, "error": {"errno": "EIO"}}
            # Behind the probe: a device that fails there is given up before there is a plan.
            at, times = int(random.integers(10, 120)), int(random.integers(1, 4))
            faults.append({"kind": str(kind), "at": at, "times": times, **more.get(str(kind), {})})
        sums = str(random.choice(["HOST", "CHAIN"]))
        prefill(
            worker, driver, random.integers(1, 22, 4).tolist(), faults,
            planes=int(random.integers(1, 3)), threads=int(random.integers(1, 5)), timeout_ms=100,
            columns=32 * int(random.integers(1, 4)), slots=int(random.choice([0, 2, 3, 4])),
            parts=int(random.integers(1, 4)), sums=sums, tile_rows=4 * int(random.integers(1, 5)),
            lanes=int(random.integers(1, 4)),
        )  # fmt: skip


MANY = {"tile_rows": 4, "parts": 2, "sums": "HOST", "threads": 2}  # chains of ten programs
SILENT = [
    {"kind": "skipped_program", "program": 1},
    {"kind": "skipped_program", "program": 4},
    {"kind": "skipped_program", "program": -1},
    {"kind": "wrong_rows", "every": 3, "rows": 2},
    {"kind": "wrong_rows", "every": 1, "rows": 1, "core": 0},
    {"kind": "flipped_bits"},
    {"kind": "stale_output"},
]


def called(fault):
    return " ".join(map(str, fault.values()))


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fault", SILENT, ids=called)
def test_what_is_wrong_in_a_job_that_succeeds_is_noticed(worker, driver, fault, planes):
    if driver == "rocket":  # whose kernel chooses the core of a job
        fault = {key: value for key, value in fault.items() if key != "core"}
    at = job(driver, 12)
    answer = prefill(worker, driver, [20, 20, 20], [{**fault, "at": at}], planes=planes, **MANY)
    assert (answer["work"]["fallbacks"], answer["work"]["stopped"]) == (0, None)
    assert answer["work"]["steps"] == 3
    assert answer["about"]["faults"] == answer["about"]["resets"] == 1


@pytest.mark.parametrize("bit", range(24, 32))
def test_the_same_bit_of_two_sums_of_a_row_is_noticed_whichever_it_is(worker, bit):
    """Each job draws other columns; these jobs have no columns besides the linear's."""
    for at in (10, 11, 13):
        flipped = {"kind": "flipped_bits", "bit": bit, "at": at}
        answer = prefill(worker, "rknpu", [20], [flipped], tile_rows=20, threads=2)
        assert answer["about"]["faults"] == answer["about"]["resets"] == 1, flipped
        assert answer["work"]["stopped"] is None


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fault", SILENT, ids=called)
def test_what_stays_wrong_ends_on_the_cpu(worker, driver, fault):
    faults = [{**fault, "at": job(driver, 12), "times": 1000}]
    answer = prefill(worker, driver, [20, 20, 20], faults, **MANY)
    assert answer["work"]["fallbacks"] == 1
    assert "was given up" in answer["work"]["stopped"]
    assert answer["about"]["faults"] >= 2


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_part_of_a_step_that_cannot_begin_anew_is_an_error(worker, driver):
    order = {"order": "in_pieces", "driver": driver, "pieces": [[0, 3], [3, 11], [11, -1]]}
    wrong = {"kind": "wrong_rows", "every": 1, "rows": 24, "at": 4, "times": 1000}
    answer, _ = worker.tell(order, driver, [wrong])
    assert "run the step from its first operation" in answer["error"]
