"""Names that stand in Python, in C++ and on the pages are the same ones."""

import re
from pathlib import Path

import pytest

from rockledge.runtime.choices import KERNELS, NPU_DRIVERS, NPU_MODES
from rockledge.runtime.native import library

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "auto"])
def test_the_core_knows_a_kernel_by_the_same_name(name: str) -> None:
    assert library().rl_kernel_name(KERNELS[name]) == name.encode()


@pytest.mark.parametrize(
    "header, prefix, names",
    [("rockledge.h", "RL_KERNEL_", KERNELS), ("npu/npu.h", "RL_NPU_", NPU_DRIVERS)],
)
def test_numbers_are_those_of_the_header(header: str, prefix: str, names: dict[str, int]) -> None:
    text = (ROOT / "native" / header).read_text()
    assert {name: int(re.search(rf"\b{prefix}{name.upper()} = (-?\d+)", text)[1]) for name in names} == names  # type: ignore[index]


def test_the_pages_name_all_of_them() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert f"--kernel {'|'.join(KERNELS)}" in page
    assert f"--npu {'|'.join(NPU_MODES)}" in page
