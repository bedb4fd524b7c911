"""The check of every byte beside other work."""

import threading
from collections.abc import Callable

import pytest

from rockledge.artifact.background import BackgroundCheck
from rockledge.errors import ArtifactError, DiskError


def test_a_whole_artifact_is_verified() -> None:
    check = BackgroundCheck(lambda progress: progress(1))
    assert check.state == "unchecked"
    check.start()
    check.finish()
    assert (check.state, check.failure) == ("verified", None)
    check.require()


def test_damage_is_an_error_as_soon_as_it_is_known_and_at_the_end() -> None:
    found = threading.Event()

    def verify(progress: Callable[[int], None]) -> None:
        found.wait()
        raise ArtifactError("the checksum of head is wrong; fetch it again")

    check = BackgroundCheck(verify)
    check.start()
    check.require()
    assert check.state == "checking"
    found.set()
    for _ in range(2):
        with pytest.raises(ArtifactError, match="head"):
            check.finish()
    with pytest.raises(ArtifactError, match="head"):
        check.require()
    assert check.state == "damaged"


def test_a_stopped_check_ends_early_and_says_nothing() -> None:
    reading = threading.Event()

    def verify(progress: Callable[[int], None]) -> None:
        while True:  # a file without an end
            reading.set()
            progress(1)

    check = BackgroundCheck(verify)
    check.start()
    reading.wait()
    check.stop()
    assert (check.state, check.failure) == ("unchecked", None)


def test_a_disk_that_fails_is_no_damage(caplog: pytest.LogCaptureFixture) -> None:
    def verify(_: Callable[[int], None]) -> None:
        raise DiskError("the disk says no")

    check = BackgroundCheck(verify)
    check.start()
    check.finish()
    assert (check.state, check.failure) == ("unchecked", None)
    assert "the disk says no" in caplog.text
