"""The library that stands in for the NPU's kernel drivers in a process, and how it gets there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rockledge.errors import NpuError
from rockledge.npu.virtual_npu import ADDRESS_VARIABLE

LIBRARY: Final = "librockledge_virtual_npu.so"
LIBRARY_VARIABLE: Final = "ROCKLEDGE_VIRTUAL_NPU_LIBRARY"


def library_path() -> Path:
    """The path in the environment's ROCKLEDGE_VIRTUAL_NPU_LIBRARY, else the one in the package directory.

    Raises NpuError when it does not exist.
    """
    chosen = os.environ.get(LIBRARY_VARIABLE)
    path = Path(chosen) if chosen else Path(__file__).resolve().parents[1] / LIBRARY
    if not path.exists():
        raise NpuError(f"the virtual NPU's library {path} does not exist; build it with `make native`")
    return path


def environment(address: str, base: Mapping[str, str]) -> dict[str, str]:
    """`base` with what a process needs to find the virtual NPU at `address` (`VirtualNpu.address`)."""
    # What is preloaded already stays in front: a sanitizer has to be first.
    before = [base["LD_PRELOAD"]] if base.get("LD_PRELOAD") else []
    return {**base, "LD_PRELOAD": " ".join([*before, str(library_path())]), ADDRESS_VARIABLE: address}
