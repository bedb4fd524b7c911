"""The file of a page: what is read is what was written, or nothing."""

import tempfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.runtime.prefix_page import FILE, HEADER_BYTES, Bytes, PageKey, header, read

KEY = PageKey(b"identity" * 2, b"the page's name.", 3)
DATA = np.arange(40, dtype=np.uint8) * 5


def whole(key: PageKey = KEY, data: Bytes = DATA) -> bytes:
    return header(key, data) + data.tobytes()


def read_back(content: bytes, key: PageKey = KEY) -> Bytes | None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return read(file.fileno(), key)


@settings(max_examples=50, deadline=None)
@given(
    identity=st.binary(min_size=16, max_size=16),
    name=st.binary(min_size=16, max_size=16),
    pool=st.integers(0, 2**32 - 1),
    data=st.binary(max_size=300),
)
def test_a_page_comes_back(identity: bytes, name: bytes, pool: int, data: bytes) -> None:
    key = PageKey(identity, name, pool)
    back = read_back(whole(key, np.frombuffer(data, np.uint8)), key)
    assert back is not None
    assert back.dtype == np.uint8
    assert back.tobytes() == data
    assert FILE.fullmatch(key.file)


def test_every_flipped_bit_is_a_miss() -> None:
    content = whole()
    assert len(content) == HEADER_BYTES + len(DATA)
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        assert read_back(bytes(damaged)) is None, position


def test_every_cut_and_every_addition_is_a_miss() -> None:
    content = whole()
    for length in range(len(content)):
        assert read_back(content[:length]) is None, length
        assert read_back(content[:length].ljust(len(content), b"\0")) is None or not any(content[length:])
    assert read_back(content + b"\0") is None
    assert read_back(b"\0" + content) is None
    assert read_back(content[:HEADER_BYTES] + content) is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_bytes_that_nobody_wrote_are_a_miss(content: bytes, kept: int) -> None:
    """Anything at all, and anything after a right beginning."""
    assert read_back(content) is None
    assert read_back(whole()[:kept] + content) is None or whole()[:kept] + content == whole()


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, identity=b"Identity" * 2),
        replace(KEY, name=b"another's name.."),
        replace(KEY, pool=4),
    ],
)
def test_a_page_of_another_name_is_a_miss(other: PageKey) -> None:
    assert read_back(whole(), other) is None
    assert other.file != KEY.file


@pytest.mark.parametrize(
    "identity, name, pool", [(b"", b"n" * 16, 0), (b"i" * 16, b"n", 0), (b"i" * 16, b"n" * 16, -1)]
)
def test_names_of_another_form_are_refused(identity: bytes, name: bytes, pool: int) -> None:
    with pytest.raises(ValueError):
        PageKey(identity, name, pool)
