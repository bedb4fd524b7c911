"""Requests while the NPU misbehaves: each ends with the CPU's answer to the bit, or all with one clear error.

And nothing is left: no buffer of the device, no descriptor, no mapping, no thread.
"""

import pytest
from tests.runtime.npu_schedules import CHOSEN, SOON, drawn, for_driver
from tests.runtime.virtual_npu import Worker

from rockledge_npu_lab.virtual.device_faults import JOB, KINDS

DRIVERS = ("rknpu", "rocket")
RANDOM = 1000
BLOCK = 50
# The toy's weights unpacked stay in the device's buffers, or pass through the ring.
ALL_FITS = ("rotated-tied", {"ctx": 256})
STREAMED = ("two-planes", {"ctx": 256, "memory": 2_000_000})


@pytest.fixture(scope="module")
def worker():
    worker = Worker(module="schedule_worker")
    yield worker
    worker.close()


@pytest.fixture
def ask(worker, artifact_path):
    """What becomes of requests to a fresh engine on a fresh virtual NPU, which must leave nothing behind."""

    def asked(model, driver, faults, requests, *, at_once, timeout_ms, npu="auto"):
        variant, settings = model
        order = {
            "order": "requests",
            "path": str(artifact_path(variant)),
            "requests": requests,
            "at_once": at_once,
            "timeout_ms": timeout_ms,
            "npu": npu,
            "npu_rows": 2,
            **settings,
        }
        answer, summary = worker.tell(order, driver, faults)
        before, after = answer["held"]
        assert after == before, (faults, "descriptors, mappings or threads are left")
        assert (summary.files_left, summary.crashes) == (0, 0), faults
        # A device that is gone takes nothing back; its driver frees what its files held.
        if not any(fault["kind"] == "gone" for fault in faults):
            assert summary.buffers_left == 0, faults
        return answer, summary

    return asked


def is_seen(fault):
    """Whether a fault of a job is one that is noticed: not one that ends in time."""
    return KINDS[fault["kind"]].counts == JOB and fault.get("seconds", 1.0) > SOON["seconds"]


def right(answer):
    return answer["error"] is None and set(answer["outcomes"]) == {"right"}


def test_there_are_enough():
    assert len({one.name for one in CHOSEN}) == len(CHOSEN) >= 20


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: chosen.name)
def test_a_chosen_schedule(ask, chosen, driver):
    faults = for_driver(chosen.faults, driver)
    requests = [(20, 0), (33, 0), (5, 2)]
    answer, summary = ask(ALL_FITS, driver, faults, requests, at_once=False, timeout_ms=600)
    assert right(answer), answer
    npu = answer["npu"]
    assert npu["state"] == chosen.state
    assert (npu["reason"] is None) == (chosen.state == "ready")
    assert npu["fallbacks"] == (chosen.state == "failed")
    counted = [fault for fault in faults if fault["kind"] not in ("memory", "slow_clock")]
    assert summary.faults >= len(counted)
    if any(is_seen(fault) for fault in faults):
        assert npu["faults"] + npu["tried_wrong"] > 0


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "chosen", [one for one in CHOSEN if one.state == "unusable"], ids=lambda chosen: chosen.name
)
def test_required_it_is_one_error(ask, chosen, driver):
    faults = for_driver(chosen.faults, driver)
    answer, _ = ask(ALL_FITS, driver, faults, [(20, 0)], at_once=False, timeout_ms=600, npu="require")
    check_error(answer["error"])
    assert answer["outcomes"] == [None]


def check_error(error):
    name, text = error
    assert name == "NpuError"
    assert text.startswith("the NPU is required and cannot be used: ")
    assert len(text) > 80
    assert "\n" not in text


SOME = range(RANDOM, RANDOM + 20, 10)


@pytest.mark.parametrize("first", SOME)
def test_a_few_random_schedules(ask, first):
    random_schedules(ask, range(first, first + SOME.step))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(0, RANDOM, BLOCK))
def test_random_schedules(ask, first):
    random_schedules(ask, range(first, first + BLOCK))


def random_schedules(ask, seeds):
    for seed in seeds:
        one = drawn(seed, slowest=0.15)
        answer, _ = ask(
            STREAMED if one.streamed else ALL_FITS,
            one.driver,
            one.faults,
            one.requests,
            at_once=one.at_once,
            timeout_ms=100,
            npu=one.mode,
        )
        if answer["error"] is not None:
            assert one.mode == "require", (seed, one, answer)
            check_error(answer["error"])
            assert set(answer["outcomes"]) == {None}
        else:
            assert right(answer), (seed, one, answer)
