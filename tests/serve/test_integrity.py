"""What becomes of damage and of changes to the model's file while the server answers."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rockledge.errors import ArtifactError, DiskError
from rockledge.serve.errors import ApiError
from rockledge.serve.integrity import CHANGED, Integrity


class File:
    """A watched file of which a test says what happened to it."""

    def __init__(self) -> None:
        self.written = False
        self.short: str | None = None
        self.bad: str | None = None
        self.samples = 0

    def changed(self) -> bool:
        if self.short is not None:
            raise ArtifactError(self.short)
        written, self.written = self.written, False
        return written

    def check_ends(self) -> None:
        self.samples += 1
        if self.bad is not None:
            raise ArtifactError(self.bad)


class Kept:
    """An integrity that polls fast, and what it has told."""

    def __init__(self, file: File | None, verify: Callable[[object], None] | None) -> None:
        self.told: list[ApiError] = []
        self.integrity = Integrity(verify, file, poll_s=0.005)
        self.integrity.start(self.told.append)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.002)


@pytest.fixture
def keep() -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def start(file: File | None = None, verify: Callable[[object], None] | None = None) -> Kept:
        made.append(Kept(file, verify))
        return made[-1]

    yield start
    for kept in made:
        kept.integrity.close()


def test_a_whole_file_is_verified_and_sampled(keep: Callable[..., Kept]) -> None:
    file = File()
    kept = keep(file, lambda _: None)
    kept.until(lambda: kept.integrity.state == "verified" and file.samples > 1)
    kept.integrity.require()
    assert kept.told == []


def test_a_change_stops_answers_until_it_is_checked(keep: Callable[..., Kept]) -> None:
    file, gate, times = File(), threading.Event(), []

    def verify(_: object) -> None:
        times.append(None)
        assert len(times) == 1 or gate.wait(10)

    kept = keep(file, verify)
    kept.until(lambda: kept.integrity.state == "verified")
    file.written = True
    kept.until(lambda: kept.integrity.trouble is not None)
    assert kept.integrity.trouble is not None
    assert (kept.integrity.trouble.message, kept.integrity.trouble.code) == (CHANGED, "server_busy")
    kept.until(lambda: kept.integrity.state == "checking")
    with pytest.raises(ApiError):
        kept.integrity.require()
    gate.set()
    kept.until(lambda: kept.integrity.trouble is None)
    assert [error.message for error in kept.told] == [CHANGED]
    assert len(times) == 2


def test_a_disk_that_fails_is_no_damage_and_the_check_is_made_again(keep: Callable[..., Kept]) -> None:
    file, good = File(), threading.Event()

    def verify(_: object) -> None:
        if not good.is_set():
            raise DiskError("the disk says no")

    kept = keep(file, verify)
    kept.until(lambda: kept.integrity.state == "unchecked")
    kept.integrity.require()
    file.written = True
    kept.until(lambda: kept.integrity.trouble is not None)
    good.set()
    kept.until(lambda: kept.integrity.trouble is None)
    assert (kept.integrity.state, kept.integrity.failure) == ("verified", None)


@pytest.mark.parametrize("how", ["short", "sample", "written"])
def test_damage_is_final_and_told_once(
    keep: Callable[..., Kept], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, whole = File(), [True]

    def verify(_: object) -> None:
        if not whole[0]:
            raise ArtifactError("it is damaged")

    kept = keep(file, verify)
    kept.until(lambda: kept.integrity.state == "verified")
    if how == "short":
        file.short = "it is damaged"
    elif how == "sample":
        file.bad = "it is damaged"
    else:
        whole[0], file.written = False, True
    kept.until(lambda: kept.integrity.failure is not None and len(kept.told) > (how == "written"))
    assert kept.integrity.state == "damaged"
    assert (kept.told[-1].message, kept.told[-1].code, kept.told[-1].status) == (
        "it is damaged",
        "artifact_damaged",
        503,
    )
    assert caplog.text.count("it is damaged") == 1
    time.sleep(0.05)
    assert len(kept.told) == 1 + (how == "written")


def test_without_anything_to_check_all_is_well(keep: Callable[..., Kept]) -> None:
    kept = keep()
    assert (kept.integrity.state, kept.integrity.failure, kept.integrity.trouble) == ("unchecked", None, None)
