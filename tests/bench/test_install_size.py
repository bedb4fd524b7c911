"""What wheels weigh: the newest one of a name for this processor, packed and installed."""

import os
import platform
import zipfile
from pathlib import Path

import pytest

from bench.install_size import find_wheel, weigh


def wheel(folder: Path, name: str, age: int) -> Path:
    """A wheel of two files of 1,000 bytes each, made `age` seconds ago."""
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.py", b"a" * 1000)
        packed.writestr("b.py", b"b" * 1000)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_packed_and_installed(tmp_path: Path) -> None:
    made = wheel(tmp_path, "a.whl", 0)
    assert weigh(made) == (made.stat().st_size, 2000, 2)
    assert weigh(made).wheel < 1000


def test_the_newest_of_that_name_and_processor_is_taken(tmp_path: Path) -> None:
    here, there = platform.machine(), {"x86_64": "aarch64"}.get(platform.machine(), "x86_64")
    wheel(tmp_path, f"rockledge-0.1-py3-none-manylinux_2_28_{here}.whl", 9)
    newest = wheel(tmp_path, f"rockledge-0.2-py3-none-manylinux_2_28_{here}.whl", 5)
    wheel(tmp_path, f"rockledge-0.3-py3-none-manylinux_2_28_{there}.whl", 1)
    wheel(tmp_path, f"rockledge_npu_lab-0.3-py3-none-manylinux_2_28_{here}.whl", 1)
    assert find_wheel(tmp_path, "rockledge") == newest
    with pytest.raises(FileNotFoundError, match="no wheel nothing for"):
        find_wheel(tmp_path, "nothing")
