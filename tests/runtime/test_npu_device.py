"""The native device on a virtual NPU: exact sums through both drivers' system calls, and every fault.

Whatever goes wrong, a product is right or there is one error, and nothing is left open or allocated.
"""

import errno

import numpy as np
import pytest
from tests.runtime.virtual_npu import Worker

from rockledge_npu_lab.virtual.device_faults import KINDS

DRIVERS = ("rknpu", "rocket")


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def clean(answer, summary):
    """Nothing leaked in the program, and nothing was left to the driver to clean up."""
    before, after = answer["held"]
    assert after == before
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)


@pytest.mark.parametrize("driver", DRIVERS)
def test_products_are_exact(worker, driver):
    shapes = ((1, 32, 32), (100, 576, 1536), (513, 200, 4000))
    answer, summary = worker.multiply(driver, shapes=shapes, timeout_ms=5000)
    assert answer["errors"] == []
    assert answer["right"] == [True] * 3
    about = answer["about"]
    assert (about["driver"], about["cores"], about["faults"], about["resets"]) == (driver, 3, 0, 0)
    assert about["spaces"] == (1 if driver == "rknpu" else 3)
    assert summary.programs > 3
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
def test_auto_finds_either_driver(worker, driver):
    answer, summary = worker.multiply("auto", emulated=driver)
    assert answer["about"]["driver"] == driver
    assert answer["right"] == [True]
    clean(answer, summary)


@pytest.mark.parametrize("version", [(0, 9, 2), (0, 9, 5), (0, 9, 6), (0, 9, 7), (0, 9, 8)])
def test_known_versions_of_the_vendor_driver_work(worker, version):
    answer, summary = worker.multiply("rknpu", version=version)
    assert (answer["errors"], answer["right"]) == ([], [True])
    assert tuple(answer["about"]["version"]) == version
    clean(answer, summary)


@pytest.mark.parametrize("version", [(0, 9, 1), (0, 8, 2), (0, 9, 9), (1, 0, 0)])
def test_other_versions_are_refused(worker, version):
    answer, summary = worker.multiply("rknpu", version=version)
    (error,) = answer["errors"]
    assert ".".join(map(str, version)) in error
    assert "0.9.2 to 0.9.8" in error
    clean(answer, summary)


@pytest.mark.parametrize("wanted, there", [("rknpu", "rocket"), ("rocket", "rknpu")])
def test_the_other_driver_is_not_taken(worker, wanted, there):
    answer, summary = worker.multiply(wanted, emulated=there)
    (error,) = answer["errors"]
    assert "no NPU" in error
    assert wanted in error
    clean(answer, summary)


# Faults that one reset mends. The first jobs prove the cores, each alone and then all together twice.
# (kind and its numbers, whether the device saw a fault)
MENDED = [
    ({"kind": "lost"}, True),
    ({"kind": "skipped"}, True),
    ({"kind": "late", "seconds": 0.05}, False),
    ({"kind": "late", "seconds": 0.9}, True),
    ({"kind": "error", "errno": "EIO"}, True),
    ({"kind": "error", "errno": "EINVAL"}, True),
    ({"kind": "busy", "seconds": 0.05}, False),
    ({"kind": "busy", "seconds": 0.9}, True),
]


def first_product(driver):
    return 6 if driver == "rknpu" else 10


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fault, seen", MENDED)
def test_a_fault_is_mended_by_one_reset(worker, driver, fault, seen):
    fault = {**fault, "at": first_product(driver)}
    answer, summary = worker.multiply(driver, [fault], shapes=((20, 64, 96), (4, 32, 64)))
    assert (answer["errors"], answer["right"]) == ([], [True, True])
    assert summary.faults == 1
    assert (answer["about"]["faults"], answer["about"]["resets"]) == (int(seen), int(seen))
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", ["lost", "skipped"])
def test_a_fault_of_the_first_job_is_mended_too(worker, driver, kind):
    answer, summary = worker.multiply(driver, [{"kind": kind, "at": 1}])
    assert (answer["errors"], answer["right"]) == ([], [True])
    assert answer["about"]["faults"] == 1
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_wrong_first_job_behind_a_reset_reaches_nobody(worker, driver):
    faults = [{"kind": "lost", "at": first_product(driver)}, {"kind": "wrong", "at": 1}]
    answer, summary = worker.multiply(driver, faults)
    assert (answer["errors"], answer["right"]) == ([], [True])
    assert answer["about"]["faults"] == 2  # the lost job, and the probe that came out wrong
    assert summary.faults == 2
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fault", [{"kind": "lost"}, {"kind": "skipped"}, {"kind": "error", "errno": "EIO"}])
def test_a_fault_that_stays_is_one_error(worker, driver, fault):
    fault = {**fault, "at": first_product(driver), "times": 1000}
    answer, summary = worker.multiply(driver, [fault], timeout_ms=60)
    (error,) = answer["errors"]
    assert "was given up" in error
    assert answer["right"] == []
    assert answer["about"]["failed"]
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", ["EAGAIN", "EINTR"])
def test_a_driver_that_always_wants_a_call_again_is_one_error(worker, driver, name):
    fault = {"kind": "error", "errno": name, "at": first_product(driver)}
    answer, _ = worker.multiply(driver, [{**fault, "times": 5}], timeout_ms=60)
    if driver == "rknpu":  # mainline tells nobody of a job that it did not take
        assert (answer["right"], answer["about"]["faults"]) == ([True], 0)
    answer, summary = worker.multiply(driver, [{**fault, "times": 1 << 30}], timeout_ms=60)
    (error,) = answer["errors"]
    assert "was given up" in error
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("at", [1, 11])
def test_a_device_that_goes_is_one_error(worker, driver, at):
    answer, summary = worker.multiply(driver, [{"kind": "gone", "at": at}], shapes=((4, 32, 32),) * 6)
    (error,) = answer["errors"]
    assert "No such device" in error
    assert answer["about"]["failed"] or "no core" in error
    assert all(answer["right"])
    before, after = answer["held"]
    assert after == before
    assert summary.files_left == 0


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name, text", [("ENOMEM", "Cannot allocate"), ("EINVAL", "Invalid argument")])
@pytest.mark.parametrize("at", [1, 2, 7, 14])
def test_a_refused_buffer_is_one_error(worker, driver, name, text, at):
    answer, summary = worker.multiply(driver, [{"kind": "refused", "errno": name, "at": at}])
    (error,) = answer["errors"]
    assert text in error
    assert "less memory" in error
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
def test_too_little_device_memory_is_one_error(worker, driver):
    answer, summary = worker.multiply(
        driver, [{"kind": "memory", "bytes": 1 << 20}], shapes=((64, 512, 4000),)
    )
    (error,) = answer["errors"]
    assert "less memory" in error
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_node_that_may_not_be_opened_names_group_and_rule(worker, driver):
    answer, summary = worker.multiply(driver, [{"kind": "denied", "times": 100}])
    (error,) = answer["errors"]
    assert "group render" in error
    assert "60-rockledge-npu.rules" in error
    assert "/dev/" in error
    clean(answer, summary)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_device_of_another_process_is_one_error(worker, driver):
    answer, summary = worker.multiply(driver, [{"kind": "locked", "times": 100}])
    (error,) = answer["errors"]
    assert "in use by another process" in error
    clean(answer, summary)


UNNOTICED = ("skipped_program", "wrong_rows", "flipped_bits", "stale_output")
"""What no mark at the end of a chain can tell; results have to be looked at."""


def random_faults(seed):
    """Up to four faults of any kinds at any early numbers."""
    random = np.random.default_rng(seed)
    values = {
        "seconds": float(random.uniform(0, 0.15)),
        "errno": "EIO",
        "bytes": int(random.integers(1, 1 << 22)),
        "core": int(random.integers(3)),
        "hertz": int(random.integers(20_000_000, 1_000_000_000)),
    }
    kinds = random.choice([kind for kind in KINDS if kind not in UNNOTICED], int(random.integers(1, 5)))
    return [
        {
            "kind": str(kind),
            "at": int(random.integers(1, 16)),
            "times": int(random.integers(1, 4)),
            **{key: values[key] for key in KINDS[str(kind)].takes},
        }
        for kind in kinds
    ]


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
@pytest.mark.parametrize("driver", DRIVERS)
def test_random_faults_end_right_or_in_one_error(worker, driver, block):
    for seed in range(30 * block, 30 * block + 30):
        faults = random_faults(seed)
        answer, summary = worker.multiply(driver, faults, shapes=((20, 64, 96),) * 4, timeout_ms=100)
        assert all(answer["right"]), faults
        assert (len(answer["right"]) == 4) != (len(answer["errors"]) == 1), faults
        before, after = answer["held"]
        assert after == before, faults
        assert (summary.files_left, summary.crashes) == (0, 0), faults
        if not any(fault["kind"] == "gone" for fault in faults):
            assert summary.buffers_left == 0, faults


def test_bad_arguments_are_errnos(worker):
    """And poll, fork and a closed descriptor behave as on a kernel's file."""
    answer, summary = worker.call_badly("rocket", "/dev/accel/accel0")
    assert answer == {
        "bad address": errno.EFAULT,
        "no address": errno.EFAULT,
        "jobs nowhere": errno.EFAULT,
        "no job": 0,  # the kernel passes over it
        "other letter": errno.ENOTTY,
        "no device": errno.ENOTTY,
        "no buffer": errno.EINVAL,
        "ready": [True],
        "silent": [],
        "child": 0,
        "closed": errno.EBADF,
    }
    assert (summary.files_opened, summary.files_left, summary.buffers_left) == (1, 0, 0)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_device_that_slept_is_proven_before_its_results_count(worker, driver):
    shapes, pause = ((20, 64, 96),) * 2, 0.3
    awake, _ = worker.multiply(driver, shapes=shapes, more={"idle_ms": 10_000, "pause": pause})
    asleep = {"kind": "asleep", "seconds": 0.2}
    answer, summary = worker.multiply(driver, [asleep], shapes=shapes, more={"idle_ms": 150, "pause": pause})
    assert awake["right"] == answer["right"] == [True, True]
    # Behind each pause it is the probe that does not run, once, and is run again.
    assert summary.faults == answer["about"]["faults"] == 2
    assert answer["about"]["submits"] == awake["about"]["submits"] + 4
    clean(answer, summary)
