"""Programs tried on a virtual NPU: what is wrong is left out by name, and what was measured counts."""

import pytest
from tests.runtime.virtual_npu import Worker

DRIVERS = ("rknpu", "rocket")
SIZES = ((96, 512, 1), (1500, 2048, 1), (200, 640, 2))  # the second is too large to be compared whole
STEPS = (64, 128)
BEFORE = {"rknpu": 5, "rocket": 9}  # jobs that prove the cores
STAYS = 1000


@pytest.fixture(scope="module")
def worker():
    worker = Worker(module="trial_worker")
    yield worker
    worker.close()


def tried(worker, driver, faults=(), sizes=SIZES, steps=STEPS):
    answer, summary = worker.tell({"order": "tried", "sizes": sizes, "steps": steps}, driver, faults)
    before, after = answer["held"]
    assert after == before
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)
    return answer


def job(driver, number, core=0):
    """Of the job number `number`, from 0, that tries a program."""
    return BEFORE[driver] + 1 + (number if driver == "rknpu" else 3 * number + core)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_right_is_used(worker, driver):
    answer = tried(worker, driver)
    assert (answer["wrong"], answer["tried"]) == ([], 6)
    assert (answer["steps"], answer["ops"]) == ([64, 128], [0, 1, 2])


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("number", range(6))
def test_a_step_size_with_wrong_last_rows_is_not_used(worker, number, rows):
    fault = {"kind": "wrong_rows", "every": 1, "rows": rows, "at": job("rknpu", number)}
    answer = tried(worker, "rknpu", [fault])
    (said,) = answer["wrong"]
    wrong, inputs = STEPS[number % 2], SIZES[number // 2][1]
    assert f"steps of {wrong} tokens of layers with {inputs} inputs" in said
    assert "sums are wrong on core" in said
    assert answer["steps"] == [rows for rows in STEPS if rows != wrong]
    assert answer["ops"] == [0, 1, 2]


@pytest.mark.parametrize("core", [0, 2])
def test_one_core_is_enough_to_be_wrong(worker, core):
    fault = {"kind": "wrong_rows", "every": 1, "at": job("rocket", 2, core)}
    answer = tried(worker, "rocket", [fault])
    assert "2048 inputs" in answer["wrong"][0]
    assert answer["steps"] == [128]


def test_what_is_never_right_stays_on_the_cpu(worker):
    fault = {"kind": "wrong_rows", "every": 1, "at": job("rknpu", 2), "times": 2}
    answer = tried(worker, "rknpu", [fault])
    assert len(answer["wrong"]) == 2
    assert (answer["steps"], answer["ops"]) == ([64, 128], [0, 2])
    assert answer["blocks"] == answer["slots"] == answer["pinned"]


def test_without_a_common_step_size_all_that_was_wrong_stays(worker):
    faults = [{"kind": "wrong_rows", "every": 1, "at": job("rknpu", number)} for number in (0, 3)]
    answer = tried(worker, "rknpu", faults)
    assert (answer["steps"], answer["ops"]) == ([64, 128], [2])


def test_nothing_right_is_an_error_with_the_first(worker):
    fault = {"kind": "wrong_rows", "every": 1, "at": job("rknpu", 0), "times": STAYS}
    answer = tried(worker, "rknpu", [fault])
    assert "programs computes correctly on the NPU: steps of 64 tokens" in answer["error"]


def test_a_slow_clock_shows_in_what_was_measured(worker):
    sizes, steps = ((2048, 2048, 1), (4096, 2048, 1)), (64, 128)
    fast = tried(worker, "rknpu", sizes=sizes, steps=steps)
    slow = tried(worker, "rknpu", [{"kind": "slow_clock", "hertz": 20_000_000}], sizes=sizes, steps=steps)
    assert slow["modelled_from"] == fast["modelled_from"] <= steps[-1]
    assert slow["from"] > max(fast["from"], slow["modelled_from"])
