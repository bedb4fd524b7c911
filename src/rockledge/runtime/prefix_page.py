"""One page of the key/value cache as a file: a header that names it, then its bytes.

    magic 8 | identity 16 | name 16 | pool u32 | bytes u64 | CRC-32 u32 | keys and values      (little endian)

The check covers header and data, so a page under a wrong name, of another model or of another pool is as
wrong as one with a flipped bit. It is zlib's CRC-32 because its only enemy is chance: it is several times
faster than BLAKE2b (docs/log.md) and sure to find every burst of up to 32 bits.
"""

import os
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NAME_BYTES = 16
FILE = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}-[0-9]+\.page")
_FIELDS = struct.Struct("<8s16s16sIQ")
_CHECK = struct.Struct("<I")
_MAGIC = b"RLPAGE01"
HEADER_BYTES = _FIELDS.size + _CHECK.size

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PageKey:
    """Which page: `identity` (16 bytes, of the model and the format of its pages), `name` (16 bytes, of all
    tokens up to its end) and the pool whose layers it has. ValueError for other lengths or a pool below 0."""

    identity: bytes
    name: bytes
    pool: int

    def __post_init__(self) -> None:
        if not len(self.identity) == len(self.name) == NAME_BYTES or not 0 <= self.pool < 1 << 32:
            raise ValueError(f"a page is named {self}, expected two times {NAME_BYTES} bytes and a pool")

    @property
    def file(self) -> str:
        """The file's name, which FILE matches."""
        return f"{self.identity.hex()}-{self.name.hex()}-{self.pool}.page"

    def fields(self, size: int) -> bytes:
        """The header of `size` bytes of data, without its check."""
        return _FIELDS.pack(_MAGIC, self.identity, self.name, self.pool, size)


def header(key: PageKey, data: Bytes) -> bytes:
    """What stands before `data` (uint8, contiguous) in the file of page `key`."""
    fields = key.fields(data.nbytes)
    return fields + _CHECK.pack(zlib.crc32(data.data, zlib.crc32(fields)))


def read(descriptor: int, key: PageKey) -> Bytes | None:
    """The data of page `key` in an open file, uint8; None if that is not what it holds. OSError where it
    cannot be read."""
    with open(descriptor, "rb", closefd=False) as stream:
        found = stream.read(HEADER_BYTES)
        size = os.fstat(descriptor).st_size - HEADER_BYTES
        if size < 0 or found[: _FIELDS.size] != (fields := key.fields(size)):
            return None
        data = np.empty(size, np.uint8)
        whole = stream.readinto(data.data) == size
    (check,) = _CHECK.unpack(found[_FIELDS.size :])
    return data if whole and zlib.crc32(data.data, zlib.crc32(fields)) == check else None
