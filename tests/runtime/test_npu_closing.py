"""How a device is closed: mainline's files rest after their last job, and nothing waits where nothing ran."""

import time

import pytest
from tests.runtime.virtual_npu import Worker

GRACE = 0.05  # native/npu/rocket.cpp


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def close(worker, driver, faults=(), **order):
    answer, summary = worker.tell(
        {"order": "close", "driver": driver, "timeout_ms": 60, "shapes": [[4, 32, 32]], **order},
        driver,
        faults,
    )
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)
    return answer["seconds"], summary


def test_files_of_mainline_rest_after_their_last_job(worker):
    seconds, summary = close(worker, "rocket")
    assert summary.shortest_rest >= GRACE
    assert seconds < 10 * GRACE


def test_a_device_that_rested_is_closed_at_once(worker):
    rested, _ = close(worker, "rocket", rest=2 * GRACE)
    never_used, summary = close(worker, "rocket", shapes=[])
    vendor, _ = close(worker, "rknpu")
    assert max(rested, never_used, vendor) < GRACE
    assert summary.shortest_rest is None


@pytest.mark.parametrize("fault", [{"kind": "late", "seconds": 0.3}, {"kind": "lost"}])
def test_a_job_that_nobody_waited_for_ends_first(worker, fault):
    start = time.monotonic()
    _, summary = close(worker, "rocket", [fault], wait=False)
    assert summary.shortest_rest >= GRACE
    assert time.monotonic() - start >= 0.3


def test_a_device_that_was_given_up_rests_too(worker):
    _, summary = close(worker, "rocket", [{"kind": "lost", "at": 2, "times": 9}], shapes=[[4, 32, 32]] * 2)
    assert summary.shortest_rest >= GRACE
