"""Whole numbers as the kernel writes them into its files, which may lie: anything else is no number."""

import re
from typing import Final

_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")  # 64 bits have no more digits


def sysfs_number(text: str) -> int | None:
    """The number that a file says; None for what is empty, no number, or more than any file of a kernel can
    say. `str.isdigit` does not tell: it is true of "²", and of more digits than `int` takes."""
    text = text.strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def sysfs_count(text: str) -> int | None:
    """The same from 0 on: clocks, sizes and states."""
    found = sysfs_number(text)
    return None if found is None or found < 0 else found
