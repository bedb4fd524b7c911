"""Memory to stream weights from: a file of random bytes that is mapped as an artifact's is.

It lies in the cache, is read in huge pages as an artifact is, where system and memory allow it, and is gone
afterwards. For comparisons it can be kept in small pages, which every system has.
"""

import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.artifact.publish import writing
from rockledge.formats.bands import TABLES, Band, stream_bytes
from rockledge.runtime import native

UInt8 = npt.NDArray[np.uint8]

ALIGN: Final = 64
_BLOCK: Final = 4 << 20
_LEAST, _MOST, _CACHES, _ONE = 96 << 20, 512 << 20, 16, 24 << 20
"""Bytes: no fewer, no more; so many times the largest cache, of which then nearly nothing is left over
from one pass to the next; what a single linear takes, however little memory there is."""


def streamed_bytes(largest_cache: int, available: int | None) -> int:
    """How many bytes to stream on a machine with such a cache, with so much memory free (None: unknown)."""
    wanted = min(max(_CACHES * largest_cache, _LEAST), _MOST)
    return wanted if available is None else min(wanted, max(available // 3, _ONE))


@contextmanager
def random_weights(size: int, folder: Path, *, small_pages: bool = False) -> Iterator[UInt8]:
    """`size` random bytes, mapped read-only. UnwritableError where the folder takes no such file."""
    piece = mmap.PAGESIZE if small_pages else _BLOCK  # what is written at once is cached together
    block = np.random.default_rng(0).bytes(_BLOCK)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".calibration-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for start in range(0, size, piece):
                    first = start % _BLOCK
                    file.write(block[first : first + min(piece, size - start)])
                os.fsync(file.fileno())
                if not small_pages:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with open(name, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        finally:
            os.unlink(name)
    if not small_pages:
        with suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    data = np.frombuffer(mapped, np.uint8)
    int(data[:: mmap.PAGESIZE].sum())  # brings it in
    yield data  # whoever still has views of it keeps the mapping


def huge_share(data: UInt8) -> float | None:
    """The share of such memory that is mapped as huge pages; None where the system does not say."""
    try:
        text = Path("/proc/self/smaps").read_text()
    except OSError:
        return None
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        first, last = (int(end, 16) for end in mapping.split(" ", 1)[0].split("-"))
        if first <= data.ctypes.data < last:
            found = re.search(r"^FilePmdMapped:\s*(\d+) kB", mapping, re.MULTILINE)
            return round(int(found[1]) * 1024 / data.size, 3) if found else None
    return None


def bands(data: UInt8, bits: int, outputs: int, inputs: int, count: int) -> list[native.Band]:
    """`count` linears as views of `data`, one after another; from the beginning again where it ends."""
    generator = np.random.default_rng(0)
    codes_bytes, index_bytes = stream_bytes([Band(0, outputs, bits)], inputs)
    tables = generator.integers(-127, 128, (TABLES, 16)).astype(np.int8)
    scale = np.full(outputs, 0.01, np.float32)
    codes_room, index_room = (-(-size // ALIGN) * ALIGN for size in (codes_bytes, index_bytes))
    found, start = [], 0
    for _ in range(count):
        if start + codes_room + index_room > data.size:
            start = 0
        index = start + codes_room
        found.append(
            native.Band(
                codes=data[start : start + codes_bytes],
                index=data[index : index + index_bytes] if bits < 8 else None,
                tables=tables if bits < 8 else None,
                scale=scale,
                bias=None,
                rows=outputs,
                cols=inputs,
                bits=bits,
                out_column=0,
            )
        )
        start = index + index_room
    return found
