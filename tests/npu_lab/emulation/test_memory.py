"""Device memory: windows reach what they name, wherever it lies, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge_npu_lab.emulation.memory import AccessError, Buffer, Memory, window


@st.composite
def cases(draw):
    """A few buffers, some of which touch, and a window somewhere near them."""
    at, buffers = draw(st.integers(0, 64)), []
    for index in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 48))
        buffers.append((f"b{index}", at, size))
        at += size + draw(st.sampled_from([0, 0, 1, 16]))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    strides = [draw(st.sampled_from([0, 1, 2, 4, 8, 16, 32])) for _ in shape]
    dtype = draw(st.sampled_from(["u1", "<u2", "<u4"]))
    return buffers, window(draw(st.integers(0, at + 16)), shape, strides, dtype)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_reads_and_writes_are_those_of_a_flat_memory(case):
    buffers, wanted = case
    flat = np.random.default_rng(1).integers(0, 256, 1024, np.uint8)
    given_ = np.full(1024, -1)
    for index, (_, at, size) in enumerate(buffers):
        given_[at : at + size] = index
    data = {name: flat[at : at + size].copy() for name, at, size in buffers}
    memory = Memory(Buffer(name, at, data[name]) for name, at, _ in buffers)
    size = wanted.dtype.itemsize
    addresses = wanted.addresses()
    touched = addresses[..., None] + np.arange(size)
    # An element must lie in one buffer; a window may reach over several.
    owners = given_[touched]
    inside = bool((owners >= 0).all() and (owners == owners[..., :1]).all())
    if not inside:
        before = {name: part.copy() for name, part in data.items()}
        with pytest.raises(AccessError):
            memory.read(wanted)
        with pytest.raises(AccessError):
            memory.write(wanted, np.zeros(wanted.shape, wanted.dtype))
        assert all((data[name] == before[name]).all() for name in data)
        return
    expected = flat[touched].view(wanted.dtype)[..., 0]
    found = memory.read(wanted)
    np.testing.assert_array_equal(found, expected)
    overlapping = len(np.unique(touched)) < touched.size
    assert wanted.overlaps_itself() == overlapping
    if overlapping:
        return
    values = np.random.default_rng(2).integers(0, 256, (*wanted.shape, size), np.uint8)
    memory.write(wanted, values.view(wanted.dtype)[..., 0])
    flat[touched] = values
    for name, at, length in buffers:
        np.testing.assert_array_equal(data[name], flat[at : at + length])


def test_what_is_read_cannot_be_written_through():
    data = np.zeros(16, np.uint8)
    view = Memory([Buffer("a", 0, data)]).read(window(0, (16,), (1,), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_arrays_of_any_type_become_buffers_that_are_written():
    sums = np.zeros((2, 4), np.int32)
    memory = Memory.of({"sums": (0x1000, sums)})
    memory.write(window(0x1010, (4,), (4,), np.int32), np.arange(4, dtype=np.int32))
    assert sums.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]


def test_buffers_that_cannot_be():
    with pytest.raises(NpuError, match="a and b overlap at 0x8"):
        Memory([Buffer("a", 0, np.zeros(16, np.uint8)), Buffer("b", 8, np.zeros(4, np.uint8))])
    with pytest.raises(NpuError, match="below 4 GiB"):
        Memory([Buffer("a", 2**32 - 8, np.zeros(16, np.uint8))])
    with pytest.raises(NpuError, match="flat array of bytes"):
        Memory([Buffer("a", 0, np.zeros(16, np.uint8)[::2])])


def test_windows_beyond_all_addresses_or_too_scattered():
    memory = Memory([Buffer("a", 0, np.zeros(16, np.uint8)), Buffer("b", 1 << 20, np.zeros(16, np.uint8))])
    with pytest.raises(AccessError, match="4 GiB"):
        memory.read(window(2**32 - 4, (8,), (1,), np.uint8))
    with pytest.raises(AccessError, match="do not lie in a single buffer"):
        memory.read(window(0, (1 << 25,), (1,), np.uint8))
    assert memory.read(window(5, (0, 3), (1, 1), np.uint8)).shape == (0, 3)


def test_the_fault_names_the_first_address_and_what_is_there():
    memory = Memory([Buffer("weights", 0x100, np.zeros(16, np.uint8))])
    with pytest.raises(
        AccessError, match=r"address 0x110 does not lie in a buffer \(weights 0x100 to 0x110\)"
    ):
        memory.read(window(0x108, (16,), (1,), np.uint8))
