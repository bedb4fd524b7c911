"""A virtual NPU for another process: answers what the preloaded library (npu_lab/native) asks.

A connection that opens a node is that file, and its end is the file's end. Every other connection carries
requests, one at a time.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from rockledge.errors import NpuError
from rockledge_npu_lab.emulation.options import DEFAULT, Options
from rockledge_npu_lab.virtual.chip import Chip
from rockledge_npu_lab.virtual.device_faults import OPEN, Fault, Schedule
from rockledge_npu_lab.virtual.device_memory import DriverError
from rockledge_npu_lab.virtual.file import Bystander, VirtualFile
from rockledge_npu_lab.virtual.rknpu import RknpuDriver
from rockledge_npu_lab.virtual.rocket import RocketDriver

DRIVERS: Final = ("rknpu", "rocket")
_OPEN, _IOCTL, _MAP, _UNMAP, _LOCK = 1, 2, 3, 4, 5
_REQUEST: Final = struct.Struct("<IIQQiI")  # operation, file, number, length, flags, bytes that follow
_REPLY: Final = struct.Struct("<iIQ")  # errno, bytes that follow, number
_MESSAGE_LIMIT: Final = 256 << 10
# Every board has a display, whose nodes come first.
_BYSTANDERS: Final = ("/dev/dri/renderD128", "/dev/dri/card0")


@dataclass(frozen=True)
class Summary:
    """The counters of a virtual NPU: what ran, what went wrong, and what was not freed.

    `shortest_rest`: the fewest seconds from the end of a file's last job to the file's end, 0 where one still
    ran; None when no file with jobs was closed.
    """

    driver: str
    jobs: int
    programs: int
    macs: int
    resets: int
    faults: int
    crashes: int
    files_opened: int
    files_left: int
    buffers_left: int
    shortest_rest: float | None
    notes: tuple[str, ...]


class VirtualNpu:
    """A context in which a process whose ROCKLEDGE_VIRTUAL_NPU is `address` has an NPU.

    `driver` is "rknpu" or "rocket"; `version` and `sram_bytes` (of system SRAM, 0 in stock kernels) are
    what rknpu reports; `note` is called with what users should know.
    """

    def __init__(
        self,
        driver: str = "rknpu",
        faults: tuple[Fault, ...] = (),
        *,
        version: tuple[int, int, int] = (0, 9, 8),
        sram_bytes: int = 0,
        options: Options = DEFAULT,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Raises NpuError for an unknown driver."""
        if driver not in DRIVERS:
            raise NpuError(f"the virtual driver is {driver!r}, expected one of {', '.join(DRIVERS)}")
        self._notes: list[str] = []
        self._report = note
        self._chip = Chip(Schedule(faults), options, self._note)
        if driver == "rknpu":
            self._driver: RknpuDriver | RocketDriver = RknpuDriver(self._chip, version, sram_bytes=sram_bytes)
        else:
            self._driver = RocketDriver(self._chip)
        self._files: dict[int, VirtualFile] = {}
        self._opened_by: dict[VirtualFile, socket.socket] = {}
        self._opened = 0
        self._buffers_left = 0
        self._shortest_rest: float | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="rockledge-npu-")
        self.address = str(Path(self._folder.name) / "device")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> VirtualNpu:
        self._listener.bind(self.address)
        self._listener.listen(64)
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._chip.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._chip.changed:  # a thread leaves the set before it closes its connection
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        self._listener.close()
        self._folder.cleanup()

    def drain(self, seconds: float = 2.0) -> None:
        """Waits until the files of programs that have ended are closed."""
        end = time.monotonic() + seconds
        with self._chip.changed:
            while self._files and (left := end - time.monotonic()) > 0:
                self._chip.changed.wait(left)

    def summary(self) -> Summary:
        """What has happened so far. Files that are open now count as left, with their buffers."""
        with self._chip.changed:
            return Summary(
                driver=self._driver.name,
                jobs=self._chip.jobs,
                programs=self._chip.programs,
                macs=self._chip.macs,
                resets=self._chip.resets,
                faults=self._chip.faults.happened,
                crashes=self._chip.crashes,
                files_opened=self._opened,
                files_left=len(self._files),
                buffers_left=self._buffers_left + self._chip.allocator.live,
                shortest_rest=self._shortest_rest,
                notes=tuple(self._notes),
            )

    def _note(self, text: str) -> None:
        with self._chip.changed:
            known = text in self._notes
            if not known:
                self._notes.append(text)
        if not known:
            self._report(text)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._chip.changed:
                self._connections.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """One connection until its end."""
        file: VirtualFile | None = None
        try:
            while message := connection.recv(_MESSAGE_LIMIT):
                reply, descriptor, opened = self._reply(message)
                if opened is not None:
                    file = opened
                    with self._chip.changed:
                        self._opened_by[file] = connection
                ancillary = []
                if descriptor is not None:
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
                connection.sendmsg([reply], ancillary)
        except OSError:  # the program ended, or is being ended
            pass
        finally:
            if file is not None:
                self._close(file)
            with self._chip.changed:
                self._connections.discard(connection)
            connection.close()

    def _reply(self, message: bytes) -> tuple[bytes, int | None, VirtualFile | None]:
        """The answer to a message, a descriptor that goes with it, and the file that it opened."""
        try:
            body, number, descriptor, file = self._answer(message)
            return _REPLY.pack(0, len(body), number) + body, descriptor, file
        except DriverError as error:
            return _REPLY.pack(error.errno, 0, 0), None, None
        except Exception as error:
            # A fault of ours must not end the device for others: the caller gets an error, the user a note.
            self._note(f"the virtual NPU failed: {type(error).__name__}: {error}")
            return _REPLY.pack(errno.EIO, 0, 0), None, None

    def _answer(self, message: bytes) -> tuple[bytes, int, int | None, VirtualFile | None]:
        if len(message) < _REQUEST.size:
            raise DriverError(errno.EPROTO)
        operation, number_of_file, number, length, flags, size = _REQUEST.unpack(message[: _REQUEST.size])
        body = message[_REQUEST.size :]
        if len(body) != size:
            raise DriverError(errno.EPROTO)
        if operation == _OPEN:
            opened = self._open(os.fsdecode(body))
            with self._chip.changed:
                self._opened += 1
                self._files[self._opened] = opened
                return b"", self._opened, None, opened
        with self._chip.changed:
            file = self._files.get(number_of_file)
        if file is None:
            raise DriverError(errno.EBADF)
        if operation == _IOCTL:
            return file.ioctl(number, body), 0, None, None
        if operation == _MAP:
            return b"", 0, file.map(number, length), None
        if operation == _UNMAP:
            file.unmap(number)
        elif operation == _LOCK:
            file.lock(flags)
        else:
            raise DriverError(errno.EPROTO)
        return b"", 0, None, None

    def _finish_closing(self) -> None:
        """Waits for files whose connections have ended: a kernel's close is over when it returns."""
        ends = select.poll()
        with self._chip.changed:
            closing = {connection.fileno(): file for file, connection in self._opened_by.items()}
            for descriptor in closing:
                ends.register(descriptor, 0)
            ended = [closing[descriptor] for descriptor, _ in ends.poll(0)]
            self._chip.changed.wait_for(lambda: self._opened_by.keys().isdisjoint(ended))

    def _open(self, path: str) -> VirtualFile:
        self._finish_closing()
        if path in self._driver.nodes:
            if self._chip.gone:
                raise DriverError(errno.ENODEV)
            hit = {fault.kind for fault in self._chip.faults.next(OPEN)}
            if "denied" in hit:
                raise DriverError(errno.EACCES)
            self._chip.foreign_lock = "locked" in hit
            return self._driver.open()
        if path in _BYSTANDERS and self._driver.name == "rknpu":
            return Bystander(self._chip)
        raise DriverError(errno.ENOENT)

    def _close(self, file: VirtualFile) -> None:
        end = file.last_job_end
        rest = None if end is None else max(time.monotonic() - end, 0.0)
        left = file.close()
        with self._chip.changed:
            if rest is not None:
                before = self._shortest_rest
                self._shortest_rest = rest if before is None else min(rest, before)
            self._buffers_left += left
            self._files = {number: f for number, f in self._files.items() if f is not file}
            self._opened_by.pop(file, None)
            self._chip.changed.notify_all()
