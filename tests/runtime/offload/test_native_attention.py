"""What the core refuses of a plan of attention before it looks at a device."""

import pytest
from tests.runtime.offloaded_toy import Toy

from rockledge.errors import NpuError
from rockledge.runtime.offload.native_attention import AttentionOffload, attend_on_npu


def test_a_step_without_an_npu_has_no_attention_there() -> None:
    step = Toy(1).program(8)
    plan = AttentionOffload(3, 0, 64, 2000, (), (), (), ((), ()), (), (), ())
    with pytest.raises(NpuError, match="uses no NPU, expected one"):
        attend_on_npu(step, plan)
    step.close()
