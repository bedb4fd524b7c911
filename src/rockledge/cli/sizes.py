"""Sizes and counts as people write them (6G, 512M, 8k), and as they read them (1 thread)."""

from __future__ import annotations

import re

from rockledge.errors import UsageError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MOST = 2.0**63  # the core counts in signed 64-bit numbers


def parse_size(text: str) -> int:
    """Bytes of a size such as `6G`, `1.5GiB`, `900M` or `1048576`; units are powers of 1024.

    Raises:
        UsageError: it is not a positive size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = float(match[1]) * UNITS[match[2].upper()] if match else 0.0
    if not 1 <= size < _MOST:
        raise UsageError(f"'{text}' is not a size; write a number with a unit, such as 6G or 900M")
    return int(size)


def parse_count(text: str) -> int:
    """A number of tokens such as `4096`, `8k` or `1M`; k is 1024, as contexts are counted.

    Raises:
        UsageError: it is not a whole number from 0 on.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KM]?)", text.strip(), re.IGNORECASE)
    count = float(match[1]) * UNITS[match[2].upper()] if match else 0.5
    if not count < _MOST or count != int(count):
        raise UsageError(f"'{text}' is not a whole number; write one such as 4096 or 8k")
    return int(count)


def megabytes(size: float) -> float:
    """Bytes as MB (10^6 bytes), the unit of every `_mb` key."""
    return round(size / 1e6, 3)


def counted(number: int, what: str) -> str:
    """A number with its noun: 1 thread, 2 threads."""
    return f"{number} {what}" + "s" * (number != 1)
