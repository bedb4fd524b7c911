"""Several cores in one submit: any order gives the same, or is refused."""

from itertools import permutations

import numpy as np
import pytest
from tests.npu_lab import sheet
from tests.npu_lab.emulation.running import operands, stored, taken
from tests.npu_lab.sheet import Shape

from rockledge.errors import NpuError
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.options import Options
from rockledge_npu_lab.emulation.submit import Job, submit

SHAPE = Shape("int8", "int32", 4, 64, 32)
BASE = {"input": 0x10000, "weight": 0x20000, "output": 0x40000}


def three(options: Options, outputs=(0x40000, 0x40200, 0x40400)):
    """Three cores that multiply one input with weights of their own, and all that they see."""
    a = operands("int8", (4, 64), 1)
    b = [operands("int8", (32, 64), core) for core in range(3)]
    arrays = {"input": (BASE["input"], stored(a, "int8", sheet.input_places(SHAPE)))}
    jobs = {}
    for core in range(3):
        place = {"input": BASE["input"], "weight": 0x20000 + 0x1000 * core, "output": outputs[core]}
        words = sheet.program(SHAPE).at(place)
        arrays[f"weight {core}"] = (place["weight"], stored(b[core], "int8", sheet.weight_places(SHAPE)))
        arrays[f"program {core}"] = (0x80000 + 0x1000 * core, np.append(words, np.uint64(0)))
        jobs[core] = Job(0x80000 + 0x1000 * core, len(words) - 4)
    output = np.zeros(3 * 512, np.uint8)
    arrays["output"] = (BASE["output"], output)
    memory = Memory.of(arrays)
    return [Core(memory, options, index) for index in range(3)], jobs, output, [a @ part.T for part in b]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_any_order_gives_the_same(order):
    cores, jobs, output, expected = three(Options(core_order=order))
    done = submit(cores, jobs)
    assert list(done) == list(order)
    for core in range(3):
        found = taken(output[512 * core : 512 * (core + 1)], "int32", sheet.output_places(SHAPE))
        np.testing.assert_array_equal(found, expected[core])


def test_two_cores_may_run_alone():
    cores, jobs, _, _ = three(Options())
    assert set(submit(cores, {0: jobs[0], 2: jobs[2]})) == {0, 2}


def test_outputs_that_meet_are_refused():
    cores, jobs, _, _ = three(Options(), outputs=(0x40000, 0x401F0, 0x40400))
    with pytest.raises(NpuError, match="cores 0 and 1 of a submit share output at 0x401f0"):
        submit(cores, jobs)


def test_reading_what_another_core_writes_is_refused():
    cores, jobs, _, _ = three(Options(), outputs=(0x40000, 0x40200, 0x20000))
    # Core 2 writes over the weights that core 0 reads.
    with pytest.raises(NpuError, match="cores 0 and 2 of a submit share weight 0 at 0x20000"):
        submit(cores, jobs)


def test_unknown_cores_and_empty_submits():
    cores, jobs, _, _ = three(Options())
    with pytest.raises(NpuError, match=r"names cores \[3\], expected some of \[0, 1, 2\]"):
        submit(cores, {3: jobs[0]})
    with pytest.raises(NpuError, match="names cores"):
        submit(cores, {})
