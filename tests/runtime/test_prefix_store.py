"""Cold prefixes on disk: a dict that forgets its oldest, whatever happens to the directory."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.runtime import prefix_writer

from rockledge.runtime import prefix_directory, prefix_store
from rockledge.runtime.prefix_page import HEADER_BYTES, Bytes
from rockledge.runtime.prefix_store import PrefixStore

ROOT = Path(__file__).parents[2]
BLOCK = 4096
NAMES = [prefix_writer.name(number) for number in range(6)]


def page(value: int, size: int = 100) -> Bytes:
    return np.full(size, value, np.uint8)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.page"))


def disk_bytes(directory: Path) -> int:
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in directory.iterdir())


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., PrefixStore]]:
    """Stores of one directory, closed at the end."""
    stores: list[PrefixStore] = []

    def opened(limit: int = 1 << 20, identity: bytes = b"model", retry_s: float = 60.0) -> PrefixStore:
        stores.append(PrefixStore(tmp_path / "prefixes", limit, identity, retry_s=retry_s))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def stored(store: PrefixStore, name: bytes, data: Bytes, pool: int = 0) -> bool:
    """Puts a page and waits for it; whether it is there."""
    store.put(name, pool, data)
    assert store.flush(10)
    return store.has(name, pool)


class StoreMachine(RuleBasedStateMachine):
    """Puts, gets, fetches, restarts (with another limit, as another model), damage and vanishing files,
    against a dict in order of use."""

    names = st.sampled_from(NAMES)
    pools = st.integers(0, 1)

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.model: OrderedDict[tuple[bytes, bytes, int], bytes] = OrderedDict()
        self.open(8, b"one")

    def open(self, blocks: int, identity: bytes) -> None:
        self.limit, self.identity = blocks * BLOCK, identity
        self.store = PrefixStore(self.directory, self.limit, identity)
        self.evict(0)

    def size(self, data: bytes) -> int:
        return -(-(len(data) + HEADER_BYTES) // BLOCK) * BLOCK

    def evict(self, room: int) -> None:
        while sum(map(self.size, self.model.values())) > self.limit - room:
            self.model.popitem(last=False)

    @rule(
        name=names,
        pool=pools,
        size=st.sampled_from([0, 1, 4000, 4096, 9000, 20000]),
        value=st.integers(0, 255),
    )
    def put(self, name: bytes, pool: int, size: int, value: int) -> None:
        data, key = page(value, size), (self.identity, name, pool)
        fits = self.size(data.tobytes()) <= self.limit
        assert self.store.put(name, pool, data) == (fits or key in self.model)
        data[:] += 1  # it was copied
        assert self.store.flush(10)
        if key in self.model:
            self.model.move_to_end(key)
        elif fits:
            data[:] -= 1
            self.evict(self.size(data.tobytes()))
            self.model[key] = data.tobytes()

    @rule(name=names, pool=pools)
    def get(self, name: bytes, pool: int) -> None:
        data, key = self.store.get(name, pool), (self.identity, name, pool)
        assert (None if data is None else data.tobytes()) == self.model.get(key)
        if data is not None:
            self.model.move_to_end(key)

    @rule(keys=st.lists(st.tuples(names, pools), max_size=4))
    def fetch(self, keys: list[tuple[bytes, int]]) -> None:
        found = self.store.fetch(keys).result(10)
        expected = [self.model.get((self.identity, *key)) for key in keys]
        assert [None if data is None else data.tobytes() for data in found] == expected
        for key in reversed(keys):
            if (self.identity, *key) in self.model:
                self.model.move_to_end((self.identity, *key))

    @rule(blocks=st.integers(1, 12), identity=st.sampled_from([b"one", b"two"]))
    def restart(self, blocks: int, identity: bytes) -> None:
        assert self.store.flush(10)
        self.store.close()
        self.open(blocks, identity)

    @precondition(lambda self: any(key[0] == self.identity for key in self.model))
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "remove"]))
    def harm(self, data: st.DataObject, how: str) -> None:
        """A file is damaged or vanishes: a miss, and its room is free."""
        key = data.draw(st.sampled_from([key for key in self.model if key[0] == self.identity]))
        identity = blake2b(key[0], digest_size=16).hexdigest()
        path = self.directory / f"{identity}-{key[1].hex()}-{key[2]}.page"
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1
        if how == "flip":
            path.write_bytes(content)
        elif how == "cut":
            path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        else:
            path.unlink()
        assert self.store.get(key[1], key[2]) is None
        assert not path.exists()
        del self.model[key]

    @invariant()
    def it_has_what_the_dict_has(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in NAMES:
            for pool in (0, 1):
                assert self.store.has(name, pool) == ((self.identity, name, pool) in self.model)
        total = sum(map(self.size, self.model.values()))
        assert self.store.stored_bytes == disk_bytes(self.directory) == total <= self.limit

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestStore = StoreMachine.TestCase


def test_the_order_of_use_survives_a_restart_and_a_clock_that_goes_back(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(3 * BLOCK)
    for number in range(3):
        assert stored(store, NAMES[number], page(number))
    monkeypatch.setattr(
        time, "time_ns", lambda: 0
    )  # a board without a clock, before it has asked for the time
    assert store.get(NAMES[0], 0) is not None
    store.flush()
    store.close()
    store = opened(3 * BLOCK)
    assert stored(store, NAMES[3], page(3))
    assert [store.has(name, 0) for name in NAMES[:4]] == [True, False, True, True]


def test_the_beginning_of_a_text_goes_last(opened: Callable[..., PrefixStore]) -> None:
    store = opened(4 * BLOCK)
    for number in range(4):
        assert stored(store, NAMES[number], page(number))
    found = store.fetch([(name, 0) for name in NAMES[:4]]).result(10)
    assert [data is not None and int(data[0]) for data in found] == [0, 1, 2, 3]
    store.touch([(name, 0) for name in NAMES[:4]])
    assert stored(store, NAMES[4], page(4))
    assert [store.has(name, 0) for name in NAMES[:5]] == [True, True, True, False, True]


def test_files_are_for_one_user(opened: Callable[..., PrefixStore], tmp_path: Path) -> None:
    assert stored(opened(), NAMES[0], page(0))
    (path,) = files(tmp_path / "prefixes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_is_not_a_page_is_left_alone(opened: Callable[..., PrefixStore], tmp_path: Path) -> None:
    directory = tmp_path / "prefixes"
    store = opened(2 * BLOCK)
    assert stored(store, NAMES[0], page(0))
    (path,) = files(directory)
    store.close()
    (directory / "notes.txt").write_bytes(bytes(9 * BLOCK))
    (directory / "more").mkdir()
    (directory / "old.page").write_text("not a page's name")
    (directory / path.name.replace("-0.page", "-1.page")).symlink_to(directory / "notes.txt")
    (directory / path.name.replace("-0.page", "-2.page")).mkdir()
    before = sorted(directory.iterdir())
    store = opened(2 * BLOCK)
    assert store.stored_bytes == BLOCK
    assert store.get(NAMES[0], 1) is store.get(NAMES[0], 2) is None
    for number in range(1, 5):
        assert stored(store, NAMES[number], page(number))
    assert set(before) - set(directory.iterdir()) == {path}
    assert (directory / "notes.txt").stat().st_size == 9 * BLOCK


def test_a_link_in_place_of_a_page_is_a_miss(opened: Callable[..., PrefixStore], tmp_path: Path) -> None:
    store = opened()
    assert stored(store, NAMES[0], page(0))
    (path,) = files(tmp_path / "prefixes")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.get(NAMES[0], 0) is None
    assert path.is_symlink()


def test_a_directory_that_others_may_write_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can put a page there can change answers."""
    tmp_path.chmod(0o777)
    store = PrefixStore(tmp_path, 1 << 20, b"model")
    assert not store.put(NAMES[0], 0, page(0))
    assert "every user may write there" in caplog.text
    store.close()


class Slow:
    """A disk that does nothing until it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        write, read = prefix_directory.PageDirectory.write, prefix_directory.PageDirectory.read
        monkeypatch.setattr(prefix_directory.PageDirectory, "write", self.after(write))
        monkeypatch.setattr(prefix_directory.PageDirectory, "read", self.after(read))

    def after(self, action: Callable[..., object]) -> Callable[..., object]:
        def later(*arguments: object) -> object:
            assert self.go.wait(10)
            return action(*arguments)

        return later


def test_nobody_waits_for_a_slow_disk(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_store, "QUEUE_BYTES", 250)
    store = opened()
    assert stored(store, NAMES[0], page(0))
    slow = Slow(monkeypatch)
    assert store.put(NAMES[1], 0, page(1))
    assert store.put(NAMES[2], 0, page(2))
    assert not store.put(NAMES[3], 0, page(3))  # the queue is full: not stored, nothing else
    assert not store.flush(0.01)
    reading = store.fetch([(NAMES[0], 0), (NAMES[2], 0), (NAMES[3], 0)])
    assert not reading.done()
    assert [store.has(name, 0) for name in NAMES[:4]] == [True, True, True, False]
    waiting = store.get(NAMES[2], 0)
    assert waiting is not None
    assert np.array_equal(waiting, page(2))
    slow.go.set()
    assert store.flush(10)
    found = reading.result(10)
    assert [data is not None and int(data[0]) for data in found] == [0, 2, False]
    assert stored(store, NAMES[3], page(3))
    assert store.written_bytes == 4 * BLOCK


def test_a_page_larger_than_the_queue_is_written_alone(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_store, "QUEUE_BYTES", 50)
    assert stored(opened(), NAMES[0], page(0))


def test_after_close_there_is_nothing(opened: Callable[..., PrefixStore], tmp_path: Path) -> None:
    store = opened()
    assert stored(store, NAMES[0], page(0))
    store.close()
    store.close()
    assert not store.has(NAMES[0], 0)
    assert not store.put(NAMES[1], 0, page(1))
    assert store.get(NAMES[0], 0) is None
    assert store.fetch([(NAMES[0], 0)]).result(1) == [None]
    assert not store.flush()
    assert len(files(tmp_path / "prefixes")) == 1


FAILURES = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOENT]


@pytest.mark.parametrize("number", FAILURES, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("call", ["open", "rename", "unlink"])
def test_what_fails_is_one_warning_and_is_tried_again(
    call: str,
    number: int,
    opened: Callable[..., PrefixStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = opened(retry_s=0.05)
    assert stored(store, NAMES[0], page(0))

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(f"rockledge.runtime.prefix_directory.os.{call}", fails)
        for attempt in range(4):
            store.put(NAMES[1 + attempt % 2], 0, page(1))
            assert store.flush(10)
            store.get(NAMES[0], 0)
            time.sleep(0.06 * (attempt % 2))
    worked = call == "unlink" and number == errno.ENOENT  # gone already is as good as removed
    assert len(caplog.records) == (not worked), caplog.text
    time.sleep(0.06)
    assert stored(store, NAMES[3], page(3))
    found = store.get(NAMES[3], 0)
    assert found is not None
    assert found[0] == 3
    if number not in (errno.ENOSPC, errno.EDQUOT):  # then it has made way
        assert store.get(NAMES[0], 0) is not None
    assert not list((tmp_path / "prefixes").glob(".*"))
    assert len(caplog.records) == (not worked)


@pytest.mark.parametrize("call", ["open", "dup"])
def test_a_process_out_of_descriptors_keeps_its_pages(
    call: str, opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    assert stored(store, NAMES[0], page(0))

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(f"rockledge.runtime.prefix_directory.os.{call}", fails)
        assert store.get(NAMES[0], 0) is None
    assert store.get(NAMES[0], 0) is not None


def test_older_pages_make_way_on_a_disk_that_others_fill(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Room for three pages, of a limit of many."""
    store = opened()
    rename = os.rename

    def full(*arguments: object, **named: object) -> None:
        if store.stored_bytes >= 3 * BLOCK:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("rockledge.runtime.prefix_directory.os.rename", full)
    for number in range(6):
        assert stored(store, NAMES[number], page(number))
    assert [store.has(name, 0) for name in NAMES] == [False] * 3 + [True] * 3
    assert not caplog.records


FULL_DISK = """
mount -t tmpfs -o size=300k tmpfs "$1" && exec "$2" -c '
import sys
from pathlib import Path
from tests.runtime import prefix_writer as writer
from rockledge.runtime.prefix_store import PrefixStore
mount = Path(sys.argv[1])
(mount / "others").write_bytes(bytes(60_000))
store = PrefixStore(mount / "prefixes", 1 << 30, b"model", retry_s=0)
for number in range(5):
    store.put(writer.name(number), 0, writer.data(number)[:90_000])
    store.flush()
print([store.get(writer.name(n), 0) is not None for n in range(5)])
try:
    with open(mount / "others", "ab") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
except OSError:
    pass
for number in range(5, 9):
    store.put(writer.name(number), 0, writer.data(number)[:90_000])
    store.flush()
found = [store.get(writer.name(n), 0) for n in range(9)]
print([data is not None and bool((data == writer.data(n)[:90_000]).all()) for n, data in enumerate(found)])
print(len(list((mount / "prefixes").iterdir())))
' "$1"
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*command, f"mount -t tmpfs tmpfs {tmp_path}"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a file system of one's own cannot be mounted here")
    done = subprocess.run(
        [*command, FULL_DISK, "bash", str(tmp_path), sys.executable],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, count = done.stdout.splitlines()
    assert first == str([False] * 3 + [True] * 2)
    assert second == str([False] * 7 + [True] * 2)
    assert count == "2"


def test_a_read_only_directory_can_still_be_read(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    assert stored(store, NAMES[0], page(0))
    store.close()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for call in ("unlink", "rename", "utime", "mkdir"):
        monkeypatch.setattr(f"rockledge.runtime.prefix_directory.os.{call}", refused)
    store = opened()
    assert store.get(NAMES[0], 0) is not None
    assert not store.put(NAMES[1], 0, page(1))
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["read-only file system"]


def test_a_directory_that_vanishes_and_comes_back(
    opened: Callable[..., PrefixStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "prefixes"
    store = opened(retry_s=0.05)
    for number in range(2):
        assert stored(store, NAMES[number], page(number))
    shutil.rmtree(directory)
    assert store.get(NAMES[0], 0) is None
    for _ in range(3):
        assert not stored(store, NAMES[2], page(2))
        time.sleep(0.06)
    assert not directory.exists()  # not made again: it may be the place of a disk that is unplugged
    assert len(caplog.records) == 1
    directory.mkdir()
    assert stored(store, NAMES[2], page(2))
    assert not store.has(NAMES[1], 0)
    assert len(files(directory)) == 1


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_place_that_cannot_be_a_directory(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = PrefixStore(tmp_path / "file" / ("x" if place == "below a file" else ""), 1 << 20, b"model")
    assert not store.put(NAMES[0], 0, page(0))
    assert store.get(NAMES[0], 0) is None
    assert store.stored_bytes == 0
    assert len(caplog.records) == 1
    store.close()


def writer(directory: Path, limit: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.prefix_writer", str(directory), str(limit)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def seen_bytes(directory: Path) -> int:
    """Bytes of all files, those half-written too, while another process changes them."""
    total = 0
    for path in list(directory.iterdir()):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_a_killed_writer_and_a_second_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The directory has one owner at a time and never more than its limit; after the owner's death the next
    has every page whole, and nothing half-written stays."""
    limit, size = 1_000_000, -(-(200_000 + HEADER_BYTES) // BLOCK) * BLOCK
    for round_ in range(3):
        process = writer(tmp_path, limit)
        try:
            store = PrefixStore(tmp_path, limit, prefix_writer.IDENTITY, retry_s=0.01)
            assert not stored(store, b"x" * 16, page(0))
            assert store.stored_bytes == 0
            assert "another process uses it" in caplog.text
            end = time.monotonic() + 0.1 + 0.05 * round_
            while time.monotonic() < end or not files(tmp_path):
                assert seen_bytes(tmp_path) <= limit
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
        assert stored(store, b"x" * 16, page(0))
        assert not list(tmp_path.glob(".*"))
        numbers = [n for n in range(20_000) if store.has(prefix_writer.name(n), 0)]
        assert numbers
        for number in numbers:
            found = store.get(prefix_writer.name(number), 0)
            assert found is not None
            assert np.array_equal(found, prefix_writer.data(number))
        assert size * len(numbers) + BLOCK == store.stored_bytes <= limit
        store.close()
    assert len(caplog.records) == 3  # one of each store


def test_a_half_written_page_is_removed_at_the_start(
    opened: Callable[..., PrefixStore], tmp_path: Path
) -> None:
    opened().close()
    (tmp_path / "prefixes" / prefix_directory.PARTIAL).write_bytes(b"half")
    store = opened()
    assert list((tmp_path / "prefixes").iterdir()) == []
    assert stored(store, NAMES[0], page(0))


def test_many_threads_at_once(opened: Callable[..., PrefixStore]) -> None:
    """Whatever is read is right, while pages come and go."""
    store, wrong = opened(12 * BLOCK), []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(150):
            number = int(random.integers(0, 20))
            store.put(prefix_writer.name(number), 0, page(number, 5000))
            number = int(random.integers(0, 20))
            found = store.get(prefix_writer.name(number), 0)
            if found is not None and not np.array_equal(found, page(number, 5000)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.flush(10)
    assert not wrong
    assert 0 < store.stored_bytes == disk_bytes(store.directory) <= 12 * BLOCK
