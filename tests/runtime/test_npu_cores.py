"""Which cores are used: those that work, in sets that the driver can start, whatever the others do."""

import pytest
from tests.runtime.virtual_npu import Worker

from rockledge.runtime.npu_cores import Proof, named

HOW = ("lost", "error", "nothing")


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def dead(*cores, **more):
    return [{"kind": "dead_core", "core": core, **more} for core in cores]


def use(worker, driver, faults, timeout_ms=300):
    """The cores in use, and the error; products on them were right unless there is one."""
    answer, summary = worker.multiply(
        driver, faults, shapes=((20, 64, 96), (33, 40, 64)), timeout_ms=timeout_ms
    )
    before, after = answer["held"]
    assert after == before
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)
    if answer["errors"]:
        return [], answer["errors"][0]
    assert answer["right"] == [True, True]
    return list(answer["about"]["core_numbers"]), None


# (cores that are dead, cores that are used with the vendor's driver, and with mainline)
CASES = [
    ((), [0, 1, 2], [0, 1, 2]),
    ((2,), [0, 1], [0, 1]),
    ((1,), [0], [0]),  # the vendor's cannot start cores 0 and 2 together
    ((1, 2), [0], [0]),
    ((0,), [1], []),  # mainline cannot be kept from using core 0
    ((0, 1), [2], []),
    ((0, 1, 2), [], []),
]


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cores_that_are_dead_from_the_start_are_left_out(worker, driver, how, case):
    gone, vendor, mainline = case
    if how == "lost" and driver == "rocket" and len(gone) > 1:
        pytest.skip("every lost job takes mainline half a second; the other ways show the same")
    cores, error = use(worker, driver, dead(*gone, how=how))
    assert cores == (vendor if driver == "rknpu" else mainline), error
    if not cores:
        assert "no core of the NPU" in error
        assert "core 0: " in error


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_a_core_that_fails_once_is_used(worker, driver):
    # Nothing is late here but on a busy machine, and mainline tries cores 1 and 2 once.
    cores, _ = use(worker, driver, [{"kind": "skipped", "at": 1}], timeout_ms=2000)
    assert cores == [0, 1, 2]


@pytest.mark.parametrize("how", HOW)
def test_a_core_that_dies_later_ends_the_use_of_the_device(worker, how):
    cores, error = use(worker, "rknpu", dead(0, at=6, how=how))
    assert cores == []
    assert "was given up" in error


def test_what_is_said():
    assert Proof((0, 1, 2), 1, {}).line() is None
    line = Proof((0,), 1, {1: "it is late"}).line()
    assert line == "cores 1 and 2 of the NPU cannot be used (core 1: it is late); it goes on with core 0"
    assert named([0, 1, 2]) == "cores 0, 1 and 2"
