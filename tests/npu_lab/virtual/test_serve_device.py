"""The socket of a virtual NPU: messages that make no sense are answered, and the device goes on."""

import errno
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge_npu_lab.virtual.serve_device import VirtualNpu

OPEN, IOCTL, MAP, UNMAP, LOCK = 1, 2, 3, 4, 5


@pytest.fixture(scope="module")
def npu():
    with VirtualNpu("rknpu") as npu:
        yield npu


def connect(npu):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(npu.address)
    connection.settimeout(10)
    return connection


def ask(connection, operation, file=0, number=0, length=0, flags=0, body=b""):
    """(errno, number, bytes) of a reply."""
    connection.send(struct.pack("<IIQQiI", operation, file, number, length, flags, len(body)) + body)
    reply = connection.recv(1 << 18)
    error, size, answer = struct.unpack_from("<iIQ", reply)
    assert len(reply) == 16 + size
    return error, answer, reply[16:]


def works(npu):
    """A file can be opened and tells its version."""
    with connect(npu) as opened, connect(npu) as other:
        error, file, _ = ask(opened, OPEN, body=b"/dev/dri/card1")
        assert error == 0
        error, _, body = ask(other, IOCTL, file, 0xC0086440, body=struct.pack("<II", 1, 0))
        assert (error, struct.unpack("<II", body)[1]) == (0, 908)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 7),
    st.integers(0, 3),
    st.integers(0, 2**64 - 1) | st.sampled_from([0xC0306442, 0xC0686441, 0xC0406400]),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.binary(max_size=120),
)
def test_any_request_is_answered(npu, operation, file, number, length, flags, body):
    with connect(npu) as connection:
        error, _, _ = ask(connection, operation, file, number, length, flags, body)
        assert error == 0 or error in errno.errorcode
    works(npu)


@pytest.mark.parametrize("message", [b"x", b"\0" * 31, struct.pack("<IIQQiI", 2, 1, 0, 0, 0, 500)])
def test_half_a_request_is_a_protocol_error(npu, message):
    with connect(npu) as connection:
        connection.send(message)
        assert struct.unpack_from("<i", connection.recv(4096))[0] == errno.EPROTO
    works(npu)


def test_the_end_of_a_connection_is_the_end_of_its_file(npu):
    with connect(npu) as opened, connect(npu) as other:
        _, file, _ = ask(opened, OPEN, body=b"/dev/dri/renderD129")
        create = struct.pack("<IIQQQQiI", 0, 0x403, 8192, 0, 0, 0, 0, 0)
        assert ask(other, IOCTL, file, 0xC0306442, body=create)[0] == 0
        assert (npu.summary().files_left, npu.summary().buffers_left) == (1, 1)
    npu.drain()
    assert npu.summary().files_left == 0
    assert npu.summary().buffers_left == 1  # a buffer that nobody gave back is still told
    with connect(npu) as connection:
        assert ask(connection, IOCTL, file, 0xC0086440, body=bytes(8))[0] == errno.EBADF


def test_nodes_are_those_of_a_board(npu):
    with connect(npu) as connection:
        assert ask(connection, OPEN, body=b"/dev/dri/renderD130")[0] == errno.ENOENT
        assert ask(connection, OPEN, body=b"/dev/accel/accel0")[0] == errno.ENOENT
        assert ask(connection, OPEN, body=b"/dev/dri/renderD128")[0] == 0  # the display's
    works(npu)


def test_a_lock_is_held_by_one_file():
    exclusive, unlock = 2 | 4, 8
    with VirtualNpu("rocket") as npu, connect(npu) as one, connect(npu) as two, connect(npu) as asking:
        files = [ask(connection, OPEN, body=b"/dev/accel/accel0")[1] for connection in (one, two)]
        assert ask(asking, LOCK, files[0], flags=exclusive)[0] == 0
        assert ask(asking, LOCK, files[1], flags=exclusive)[0] == errno.EWOULDBLOCK
        assert ask(asking, LOCK, files[0], flags=unlock)[0] == 0
        assert ask(asking, LOCK, files[1], flags=exclusive)[0] == 0


def test_an_unknown_driver_is_refused():
    with pytest.raises(NpuError, match="rknpu, rocket"):
        VirtualNpu("vivante")
