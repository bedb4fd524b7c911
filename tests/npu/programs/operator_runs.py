"""An operator on the emulator and in NumPy, which agree to the bit, with programs that lint accepts."""

import numpy as np

from rockledge_npu_lab.emulation.options import DEFAULT, LutRounding, Options
from rockledge_npu_lab.linting.check import lint
from rockledge_npu_lab.verify.emulated_operator import run_operator

ROLES = ("program", "input", "weight", "scratch", "output")
OTHER_LUT_ROUNDING = Options(lut_rounding=LutRounding.TIES_EVEN)


def halves(x):
    return np.asarray(x, np.float16)


def output_of(operator, **arrays):
    """float64 [rows, columns], after both ways agreed."""
    found, flags = run_operator(operator, arrays, DEFAULT)
    assert flags == ()
    np.testing.assert_array_equal(found.view(np.uint16), operator.twin(arrays).view(np.uint16))
    words = operator.program.at({role: 0x0100_0000 * (i + 1) for i, role in enumerate(ROLES)})
    assert lint(words.tolist()) == []
    return found.astype(np.float64)


def outputs_of(operator, **arrays):
    """The output with each rounding of the interpolation, of which only the first has a twin."""
    yield output_of(operator, **arrays)
    yield run_operator(operator, arrays, OTHER_LUT_ROUNDING)[0].astype(np.float64)
