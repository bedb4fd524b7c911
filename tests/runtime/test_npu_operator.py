"""Operators through both drivers: the twin's bits, and a program that did not run is noticed."""

import pytest
from tests.runtime.virtual_npu import Worker

NAMES = (
    *("silu", "gelu", "exp", "gate times up", "residual", "softmax", "rmsnorm", "layernorm"),
    *("requantised product", "feed-forward", "attention", "attention by bits"),
)


@pytest.fixture(scope="module")
def worker():
    worker = Worker(module="operator_worker")
    yield worker
    worker.close()


def operate(worker, driver, names, faults=()):
    answer, summary = worker.tell({"order": "operate", "driver": driver, "names": names}, driver, faults)
    assert answer["held"][0] == answer["held"][1]
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)
    return answer, summary


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_softmax_rmsnorm_layernorm_and_the_others_are_exact_through_the_driver(worker, driver):
    answer, _ = operate(worker, driver, NAMES)
    assert answer["errors"] == []
    assert answer["equal"] == dict.fromkeys(NAMES, True)
    assert answer["about"]["driver"] == driver
    assert answer["about"]["faults"] == 0


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "skipped"},
        {"kind": "skipped_program", "program": 5},
        {"kind": "skipped_program", "program": -1},
    ],
)
@pytest.mark.parametrize("name", ["softmax", "feed-forward", "attention"])
def test_an_operator_of_which_a_program_did_not_run_is_noticed(worker, driver, fault, name):
    _, summary = operate(worker, driver, [name])
    answer, _ = operate(worker, driver, [name], [{**fault, "at": summary.jobs}])
    assert answer["equal"] == {}
    assert f"a program of {name} left its results untouched" in answer["errors"][0]
