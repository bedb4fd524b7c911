"""SmolLM2-135M with its prompts read on the virtual NPU: the CPU's logits to the bit, through either driver.

The same with toys, and with everything that can go wrong, is in `test_engine_npu` and `test_npu_schedules`.
"""

import pytest
from tests.runtime.virtual_npu import Worker

from bench import models
from rockledge.quantization.pipeline import quantize

DRIVERS = ("rknpu", "rocket")
BLOCKS_OF_A_STEP = 30 * 4  # at the least: four linears in each of thirty layers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    path = tmp_path_factory.mktemp("smollm2") / "artifact"
    quantize(models.smollm2(), path, bits=4.5, tokens=2048, fast=True)
    return path


@pytest.fixture
def ask(smollm2):
    worker = Worker(module="engine_worker")

    def asked(driver, **order):
        order = {"order": "ask", "path": str(smollm2), "npu": "require", **order}
        answer, summary = worker.tell(order, driver)
        assert answer["error"] is None
        assert answer["states"] == ["ready"] * len(order["lengths"])
        assert (answer["npu"]["faults"], answer["npu"]["fallbacks"]) == (0, 0)
        assert answer["npu"]["blocks"] >= BLOCKS_OF_A_STEP * answer["npu"]["steps"]
        before, after = answer["held"]
        assert after == before
        assert (summary.buffers_left, summary.files_left, summary.crashes, summary.faults) == (0, 0, 0, 0)
        return answer

    yield asked
    worker.close()


@pytest.mark.parametrize("driver", DRIVERS)
def test_short_and_long_prompts(ask, driver):
    answer = ask(driver, lengths=(9, 90, 700), tokens=3, npu_rows=2, ctx=1024)
    assert answer["same"] == [True] * 3
    assert answer["answered"] == [True] * 3
    assert answer["npu"]["rows"] == 2 * (9 + 90 + 700)  # for the logits and for the answer


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_prompt_in_chunks(ask, driver):
    answer = ask(driver, lengths=(450,), chunk=200, npu_rows=2, ctx=1024)
    assert answer["same"] == [True]
    assert (answer["npu"]["steps"], answer["npu"]["rows"]) == (3, 450)


def test_the_formula_sends_it_there(ask):
    """Without being told from how many tokens on."""
    answer = ask("rknpu", lengths=(10, 200), ctx=1024)
    assert answer["same"] == [True] * 2
    assert answer["npu"]["rows"] == 200
