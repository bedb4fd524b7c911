"""How a process knows that its NPU is a virtual one, which the package rockledge-npu-lab puts there."""

from typing import Final

ADDRESS_VARIABLE: Final = "ROCKLEDGE_VIRTUAL_NPU"
"""The variable of the environment that says where the virtual NPU listens."""
