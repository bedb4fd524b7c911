"""Sizes and counts as people write and read them: 6G, 512M, 93.8 MB, 1 thread."""

from __future__ import annotations

import re

from rockledge.errors import UsageError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of a size such as `6G`, `1.5GiB`, `900M` or `1048576`; units are powers of 1024.

    Raises:
        UsageError: it is not a positive size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size <= 0:
        raise UsageError(f"'{text}' is not a size; write a number with a unit, such as 6G or 900M")
    return size


def megabytes(size: float) -> float:
    """Bytes as MB (10^6 bytes), the unit of every `_mb` key."""
    return round(size / 1e6, 3)


def counted(number: int, what: str) -> str:
    """A number with its noun: 1 thread, 2 threads."""
    return f"{number} {what}" + "s" * (number != 1)


def show_size(size: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{size:.0f} B"
