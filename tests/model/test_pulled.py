"""The record of pulled models: whole or not there, and removed without what others have too."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from rockledge.model.pulled import Pulled, PulledModels


def snapshot(hub: Path, commit: str, files: dict[str, bytes]) -> Path:
    """A snapshot as huggingface_hub lays it out: links to blobs that are named by their content."""
    repository = hub / "models--org--name"
    place = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        blob = repository / "blobs" / data.hex()
        blob.write_bytes(data)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(blob)
    return place


def pull(models: PulledModels, name: str, place: Path, files: dict[str, bytes]) -> Pulled:
    model = Pulled(name, place, {file: len(data) for file, data in files.items()}, None)
    with models.locked(name):
        models.begin(model)
        models.finish(model)
    return model


@pytest.fixture
def models(tmp_path: Path) -> PulledModels:
    return PulledModels(tmp_path / "pulled")


def test_a_model_is_there_whole_or_not_at_all(models: PulledModels, tmp_path: Path) -> None:
    files = {"a": b"one", "folder/b": b"two"}
    place = snapshot(tmp_path, "c1", files)
    model = pull(models, "org/name", place, files)
    assert models.find("org/name") == model
    assert [one for one, _ in models.whole()] == [model]
    (place / "a").resolve().write_bytes(b"o")
    assert models.find("org/name") is None
    assert models.whole() == []
    assert model.missing() == {"a": 3}
    (place / "a").unlink()
    assert models.find("org/name") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "files": {"a": "b"}}', "\x00"])
def test_a_damaged_record_is_none(models: PulledModels, text: str) -> None:
    (models.root / "org").mkdir(parents=True)
    (models.root / "org" / "name.json").write_text(text)
    (models.root / "org" / "name.partial").write_text(text)
    assert models.find("org/name") is None
    assert models.whole() == models.half_made() == []


def test_a_download_that_was_finished_but_not_said_so_counts(models: PulledModels, tmp_path: Path) -> None:
    files = {"a": b"one"}
    place = snapshot(tmp_path, "c1", files)
    model = Pulled("org/name:x/y.gguf", place, {"a": 3}, None)
    with models.locked(model.name):
        models.begin(model)
    assert models.half_made() == []
    assert models.find(model.name) == model
    assert not models.begun(model.name)


def test_what_two_models_have_stays_until_both_are_gone(models: PulledModels, tmp_path: Path) -> None:
    first, second = {"a.gguf": b"one", "card": b"both"}, {"b.gguf": b"three", "card": b"both"}
    place = snapshot(tmp_path, "c1", {**first, **second})
    one, two = pull(models, "org/name:a", place, first), pull(models, "org/name:b", place, second)
    assert models.remove(one) == 3
    assert models.find("org/name:b") == two
    assert models.remove(two) == 9
    assert not (tmp_path / "models--org--name").exists()


def test_a_blob_of_another_snapshot_stays(models: PulledModels, tmp_path: Path) -> None:
    files = {"a": b"one"}
    other = snapshot(tmp_path, "c0", files)  # another program's
    model = pull(models, "org/name", snapshot(tmp_path, "c1", files), files)
    assert models.remove(model) == 0
    assert (other / "a").read_bytes() == b"one"


def test_a_newer_version_takes_the_place_of_the_older(models: PulledModels, tmp_path: Path) -> None:
    older, newer = {"a": b"one", "same": b"same"}, {"a": b"two", "same": b"same"}
    place = snapshot(tmp_path, "c1", older)
    pull(models, "org/name", place, older)
    model = pull(models, "org/name", snapshot(tmp_path, "c2", newer), newer)
    assert models.find("org/name") == model
    assert not place.exists()
    assert (model.snapshot / "same").read_bytes() == b"same"


def test_of_two_that_fetch_one_waits(models: PulledModels) -> None:
    waited, entered = threading.Event(), threading.Event()

    def other() -> None:
        with models.locked("org/name", waiting=waited.set):
            entered.set()

    with models.locked("org/name") as mine:
        assert mine
        thread = threading.Thread(target=other)
        thread.start()
        assert waited.wait(10)
        assert not entered.is_set()
        with models.locked("org/name", wait=False) as also:
            assert not also
    thread.join()
    assert entered.is_set()


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../outside": 3}},
        {"files": {"/outside": 3}},
        {"opened": 5},
        {"opened": "../outside"},
        {"files": {"a": float("inf")}},
        {"files": [["a", 3]]},
        {"snapshot": 5},
    ],
)
def test_a_damaged_record_is_no_model(models: PulledModels, tmp_path: Path, change: dict[str, Any]) -> None:
    files = {"a": b"one"}
    pull(models, "org/name", snapshot(tmp_path, "c1", files), files)
    record = models.root / "org" / "name.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    assert (models.find("org/name"), models.whole(), models.half_made()) == (None, [], [])
    record.write_text("[" * 100_000)
    assert models.whole() == []
