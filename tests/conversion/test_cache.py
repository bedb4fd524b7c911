"""The cache of converted models: found again, renewed when the source changes, bounded, safe beside other
processes."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rockledge.artifact import open_artifact
from rockledge.conversion.cache import ConvertedModels, fingerprint
from rockledge.conversion.convert import convert
from rockledge.errors import ArtifactError, CheckpointError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.synth import synth_checkpoint

BITS = 7.0
_fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth_checkpoint("toy", tmp_path_factory.mktemp("source") / "toy")


@pytest.fixture
def source(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "toy"))


class Use:
    """Uses a cache and counts the conversions."""

    def __init__(self, root: Path, limit: int = 1 << 40, waiting: Callable[[], None] = lambda: None) -> None:
        self.models, self.made, self.waited = ConvertedModels(root, limit), 0, 0
        self._waiting = waiting

    def __call__(self, source: Path, bits: float = BITS) -> Path:
        def make(place: Path) -> None:
            self.made += 1
            convert(open_checkpoint(source), place, bits=bits)

        def waiting() -> None:
            self.waited += 1
            self._waiting()

        with self.models.model(source, bits, make, waiting) as place:
            open_artifact(place)
        return place


def test_a_model_is_converted_once(source: Path, tmp_path: Path) -> None:
    use = Use(tmp_path / "cache")
    place = use(source)
    assert place.name == "toy"
    assert (use(source), use.made) == (place, 1)
    use(source, 9.0)
    assert use.made == 2


@pytest.mark.parametrize("change", ["time", "bytes", "tokenizer", "place"])
def test_another_source_is_another_model(change: str, source: Path, tmp_path: Path) -> None:
    use = Use(tmp_path / "cache")
    use(source)
    weights = source / "model.safetensors"
    stat = weights.stat()
    if change == "time":
        os.utime(weights, ns=(0, 0))
    elif change == "bytes":  # of the same size and time
        with weights.open("r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\x01\x3c")
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "tokenizer":
        (source / "chat_template.jinja").write_text("{{ messages }}")
    else:
        source = source.rename(tmp_path / "moved")
    use(source)
    assert use.made == 2


def test_what_a_killed_or_damaging_process_left_is_made_again(source: Path, tmp_path: Path) -> None:
    use = Use(tmp_path / "cache")
    place = use(source)
    half = place.with_name(".toy.partial-1-00")
    half.mkdir()
    os.truncate(place / "model.safetensors", 5000)
    assert use(source) == place
    assert use.made == 2
    assert not half.exists()


def test_a_conversion_that_fails_leaves_nothing_to_be_found(source: Path, tmp_path: Path) -> None:
    use = Use(tmp_path / "cache")

    def fail(place: Path) -> None:
        raise CheckpointError("cut short")

    with pytest.raises(CheckpointError), use.models.model(source, BITS, fail, lambda: None):
        pass
    use(source)
    assert use.made == 1


def test_a_source_that_changes_meanwhile_is_not_kept(source: Path, tmp_path: Path) -> None:
    use = Use(tmp_path / "cache")

    def make(place: Path) -> None:
        convert(open_checkpoint(source), place, bits=BITS)
        os.utime(source / "model.safetensors", (1, 1))  # another process wrote to it

    with pytest.raises(CheckpointError, match="changed while"), use.models.model(source, BITS, make, print):
        pass
    assert use.models.all() == []
    use(source)
    assert use.made == 1


def test_what_lies_below_a_source_is_not_part_of_it(source: Path) -> None:
    before = fingerprint(source, BITS)
    (source / "below").mkdir()
    (source / "below" / "file").write_text("else")
    assert fingerprint(source, BITS) == before
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    assert fingerprint(source, BITS) != before


def test_the_least_recently_used_goes_first_and_what_is_used_stays(source: Path, tmp_path: Path) -> None:
    use = Use(tmp_path / "cache")
    first, second = use(source, 7.0), use(source, 7.5)
    os.utime(second.parent, (1, 1))
    os.utime(first.parent, (2, 2))
    size = sum(file.stat().st_size for file in first.parent.glob("**/*"))
    bounded = Use(tmp_path / "cache", int(2.5 * size))
    third = bounded(source, 8.0)
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    with Use(tmp_path / "cache").models.model(source, 7.0, lambda _: None, lambda: None) as held:
        Use(tmp_path / "cache", 1)(source, 8.0)
        assert held.exists()
    Use(tmp_path / "cache", 1)(source, 8.0)
    assert not first.exists()


def _converts(root: Path, source: Path, started: Path, made: Path) -> None:
    def slowly(stage: str, done: int, total: int) -> None:
        if done == 3:  # of the matrices: some are written
            started.touch()
            time.sleep(0.5)

    def make(place: Path) -> None:
        with made.open("a") as file:
            file.write("once\n")
        convert(open_checkpoint(source), place, bits=BITS, progress=slowly)

    with ConvertedModels(root, 1 << 40).model(source, BITS, make, lambda: None) as place:
        open_artifact(place)


def _converting(source: Path, folder: Path) -> Any:
    """Another process that is in the middle of a conversion, with its cache below `folder`."""
    started = folder / "started"
    other = _fork.Process(target=_converts, args=(folder / "cache", source, started, folder / "made"))
    other.start()
    while not started.exists():
        time.sleep(0.01)
    return other


def test_of_two_processes_one_waits(source: Path, tmp_path: Path) -> None:
    other = _converting(source, tmp_path)
    use = Use(tmp_path / "cache")
    use(source)
    other.join()
    assert (other.exitcode, use.made, use.waited) == (0, 0, 1)
    assert (tmp_path / "made").read_text() == "once\n"


def test_a_process_killed_while_it_converts_blocks_nobody(source: Path, tmp_path: Path) -> None:
    other = _converting(source, tmp_path)
    other.kill()
    other.join()
    assert list((tmp_path / "cache").glob("*/.toy.partial-*"))
    use = Use(tmp_path / "cache")
    place = use(source)
    assert use.made == 1
    assert sorted(path.name for path in place.parent.iterdir()) == ["source", "toy"]


def test_who_waits_for_a_process_that_is_killed_converts_itself(source: Path, tmp_path: Path) -> None:
    other = _converting(source, tmp_path)
    use = Use(tmp_path / "cache", waiting=other.kill)
    use(source)
    other.join()
    assert (use.made, use.waited) == (1, 1)


def test_a_cache_that_cannot_be_written_is_one_sentence(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ArtifactError, match="cannot be written"):
        Use(tmp_path / "cache")(source)


def test_a_model_removed_while_it_is_written_is_not_made_again_and_again(
    source: Path, tmp_path: Path
) -> None:
    made = []

    def remove(stage: str, done: int, total: int) -> None:
        if done == total:
            for file in (tmp_path / "cache").glob("*/.toy.partial-*/*"):
                file.unlink()

    def make(place: Path) -> None:
        made.append(place)
        assert len(made) == 1
        convert(open_checkpoint(source), place, bits=BITS, progress=remove)

    models = ConvertedModels(tmp_path / "cache", 1 << 40)
    with pytest.raises(ArtifactError, match="removed or damaged"), models.model(source, BITS, make, print):
        pass
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes every place read-only from then on, for root too, whom permissions do not stop."""
    open_file = os.open

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def open_to_read(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            refuse()
        return open_file(path, flags, *rest, **more)

    def begin() -> None:
        for name in ("utime", "unlink", "rmdir", "rename", "mkdir"):
            monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(os, "open", open_to_read)

    return begin


def test_a_read_only_cache_gives_what_it_has(
    source: Path, tmp_path: Path, read_only: Callable[[], None]
) -> None:
    use = Use(tmp_path / "cache")
    place = use(source)
    read_only()
    assert (use(source), use.made) == (place, 1)
    with use.models.kept(place.parent.name):
        assert use.models.remove(place.parent.name) is None
    with pytest.raises(ArtifactError, match="cannot be written"):
        use(source, 9.0)


def test_what_cannot_be_removed_is_said(source: Path, tmp_path: Path, read_only: Callable[[], None]) -> None:
    use = Use(tmp_path / "cache")
    place = use(source)
    read_only()
    with pytest.raises(ArtifactError, match="cannot be removed"):
        use.models.remove(place.parent.name)
    open_artifact(place)


def test_a_lock_outlives_no_block(source: Path, tmp_path: Path) -> None:
    place = Use(tmp_path / "cache")(source)
    with open(place.parent.with_name(f"{fingerprint(source, BITS)}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
