"""The ends of tensors: what is read of every tensor when a model is loaded, and how.

A copy that stopped, a block that was lost or written twice mostly shows at the ends, and they are little to
read. What lies between them is checked by `Artifact.verify`, which reads everything.
"""

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from zlib import crc32

END = 4096
"""Bytes at either end of a tensor that count; a shorter one counts whole, twice."""
NO_ENDS = "0" * 8

_BLOCK = 4096  # what direct reads are aligned to
_UNSUPPORTED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}


def ends_sum(first: bytes | memoryview, last: bytes | memoryview) -> str:
    """CRC-32 of a tensor's first and last `END` bytes, as eight hexadecimal digits."""
    return f"{crc32(last, crc32(first)):08x}"


def stored_ends(path: Path, ranges: Iterable[tuple[int, int]]) -> Iterator[str]:
    """`ends_sum` of the tensors at bytes `begin .. end - 1` of a file."""
    with ExitStack() as stack:
        read = _Reader(path, stack)
        for begin, end in ranges:
            size = min(END, end - begin)
            yield ends_sum(read(begin, size), read(end - size, size))


class _Reader:
    """Reads pieces of a file so that the page cache stays as it is: pieces that are cached from there, others
    past it. Read through it, every piece would leave a small page in the way of a huge one, which the
    weights should lie in when they are read whole (docs/log.md)."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._cached = os.open(path, os.O_RDONLY)
        stack.callback(os.close, self._cached)
        self._direct: int | None = None
        try:
            self._direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
            stack.callback(os.close, self._direct)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        self._room = stack.enter_context(mmap.mmap(-1, END + 2 * _BLOCK))

    def __call__(self, offset: int, size: int) -> bytes:
        if self._direct is None:
            return os.pread(self._cached, size, offset)
        piece = bytearray(size)
        try:
            if os.preadv(self._cached, [piece], offset, os.RWF_NOWAIT) == size:
                return bytes(piece)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, *_UNSUPPORTED}:
                raise
        start = offset - offset % _BLOCK
        aligned = -(-(offset + size - start) // _BLOCK) * _BLOCK
        try:
            with memoryview(self._room)[:aligned] as room:
                done = os.preadv(self._direct, [room], start)
                if done >= offset + size - start:
                    return bytes(room[offset - start : offset - start + size])
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        return os.pread(self._cached, size, offset)
