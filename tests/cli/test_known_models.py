"""`list`, `rm` and `clean` with models of this machine; those of the Hub are in test_hub_models.py."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rockledge import places
from rockledge.artifact import open_artifact
from rockledge.cli.known_models import converted_models
from rockledge.cli.made_artifacts import remember, remembered

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def converted(rockledge: Run, checkpoint: Path) -> Any:
    """A conversion of the toy checkpoint, as `list` shows it."""
    assert rockledge("run", checkpoint, "Hello", "--max-tokens", 1).code == 0
    (model,) = rockledge("list", "--json").json["models"]
    return model


@pytest.fixture
def made(rockledge: Run, checkpoint: Path, tmp_path: Path) -> Path:
    """An artifact made by `quantize`."""
    out = tmp_path / "made"
    assert rockledge("quantize", checkpoint, "-o", out, "--instant").code == 0
    return out


def test_nothing_is_here(rockledge: Run) -> None:
    assert rockledge("list", "--json").json == {"models": [], "size_mb": 0}
    assert "rockledge pull" in rockledge("list").out


def test_list_shows_what_was_made_and_converted(
    rockledge: Run, converted: Any, made: Path, checkpoint: Path
) -> None:
    models = {model["kind"]: model for model in rockledge("list", "--json").json["models"]}
    assert set(models) == {"made", "converted"}
    assert models["made"]["path"] == str(made)
    assert models["made"]["bits_per_weight"] == pytest.approx(open_artifact(made).bits_per_weight, abs=1e-3)
    assert models["converted"]["source"] == str(checkpoint)
    assert models["converted"]["name"] == checkpoint.name
    assert models["made"]["size_mb"] == round(sum(f.stat().st_size for f in made.iterdir()) / 1e6, 3)
    page = rockledge("list").out
    for shown in ("made", "converted", str(made), " kB", "2 models"):
        assert shown in page


def test_a_name_of_the_list_runs(rockledge: Run, converted: Any, made: Path, checkpoint: Path) -> None:
    made.rename(made.with_name("moved"))
    remember("moved")
    texts = [
        rockledge("run", model, "Hello", "--max-tokens", 4, "--json").json["text"]
        for model in (converted["name"], checkpoint, made.with_name("moved"))
    ]
    assert texts[0] == texts[1] == texts[2]
    (made.with_name("elsewhere")).mkdir()
    os.chdir(made.with_name("elsewhere"))
    assert rockledge("inspect", "moved", "--json").json["kind"] == "artifact"
    mistyped = rockledge("run", converted["name"][:-1], "Hello")
    assert (mistyped.code, f"did you mean {converted['name']}?" in mistyped.err) == (1, True)


@pytest.mark.parametrize("name", ["new\nline", "x" * 250])
def test_odd_names_are_converted_and_listed(
    name: str, rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    odd = shutil.copytree(checkpoint, tmp_path / name)
    assert rockledge("run", odd, "Hello", "--max-tokens", 1).code == 0
    listed = rockledge("list")
    assert (listed.code, listed.out.count(name.replace("\n", "\\n"))) == (0, 2)


def test_rm_of_a_conversion(rockledge: Run, converted: Any) -> None:
    done = rockledge("rm", converted["name"], "--json")
    assert done.json["removed"] == [converted["name"]]
    assert done.json["freed_mb"] == converted["size_mb"]
    assert rockledge("list", "--json").json["models"] == []
    again = rockledge("rm", converted["name"])
    assert (again.code, "shows no model" in again.err) == (2, True)


def test_rm_of_one_in_use_is_refused(rockledge: Run, converted: Any) -> None:
    entry = Path(converted["path"]).parent
    with open(entry.with_name(f"{entry.name}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        done = rockledge("rm", converted["name"])
        assert (done.code, "in use" in done.err) == (1, True)
        cleaned = rockledge("clean", "--all", "--yes", "--json")
        assert cleaned.json == {"removed": [], "freed_mb": 0}
        assert f"{converted['path']} is in use by another process and stays" in cleaned.err
    assert Path(converted["path"]).is_dir()


def test_rm_of_what_was_made_asks_and_keeps_other_files(rockledge: Run, made: Path) -> None:
    refused = rockledge("rm", "made")
    assert (refused.code, "add --yes" in refused.err) == (2, True)
    assert (made / "model.safetensors").is_file()
    (made / "notes.txt").write_text("mine")
    assert rockledge("rm", "made", "--yes").code == 0
    assert [path.name for path in made.iterdir()] == ["notes.txt"]
    assert rockledge("list", "--json").json["models"] == []


def test_one_unknown_name_removes_nothing(rockledge: Run, converted: Any) -> None:
    done = rockledge("rm", converted["name"], "nothing", "--yes")
    assert (done.code, "shows no model nothing" in done.err) == (2, True)
    assert Path(converted["path"]).is_dir()


def test_two_models_of_a_name_are_told_apart_by_path(
    rockledge: Run, converted: Any, artifact: Path, tmp_path: Path
) -> None:
    twin = shutil.copytree(artifact, tmp_path / "folder" / converted["name"])
    remember(twin)
    for command in (("rm", converted["name"]), ("run", converted["name"], "Hello")):
        done = rockledge(*command)
        assert (done.code, f"2 models are called {converted['name']}" in done.err) == (2, True)
        assert str(twin) in done.err
    assert rockledge("rm", converted["path"]).code == 0
    assert twin.is_dir()


def test_clean_removes_what_was_not_used_for_long(rockledge: Run, converted: Any) -> None:
    assert rockledge("clean", "--yes", "--json").json["removed"] == []
    entry = Path(converted["path"]).parent
    os.utime(entry, (1e9, 1e9))
    refused = rockledge("clean")
    assert (refused.code, "add --yes" in refused.err) == (2, True)
    assert entry.is_dir()
    done = rockledge("clean", "--yes", "--json")
    assert done.json == {
        "removed": [f"conversion {converted['path']}"],
        "freed_mb": converted["size_mb"],
    }
    assert not entry.exists()


@pytest.mark.parametrize("flags", [("--all",), ("--days", 0)])
def test_clean_of_everything(rockledge: Run, converted: Any, flags: tuple[object, ...]) -> None:
    assert rockledge("clean", *flags, "--yes").code == 0
    assert not Path(converted["path"]).exists()


def test_clean_of_everything_does_not_trust_the_clock(rockledge: Run, converted: Any) -> None:
    os.utime(Path(converted["path"]).parent, (1e11, 1e11))  # a board without a battery was in the future
    assert rockledge("clean", "--all", "--yes", "--json").json["removed"]
    assert rockledge("clean", "--days", "9" * 400).code == 2


def test_clean_keeps_the_limit(rockledge: Run, converted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_CONVERTED_SIZE", "1k")
    assert len(rockledge("clean", "--yes", "--json").json["removed"]) == 1


def test_clean_removes_what_killed_processes_left(rockledge: Run, made: Path) -> None:
    half = converted_models().root / "0123" / "model"
    half.mkdir(parents=True)
    download = places.demo_models() / "tmpabc"
    download.mkdir(parents=True)
    old = [made.with_name(".made.partial-1-00"), made.with_name(".made.work-abc"), download]
    kept = [
        made.with_name(".made.partial-2-00"),
        made.with_name(".made.work-def"),
        made.with_name(".mad.work-a"),
    ]
    for folder in (*old, *kept):
        folder.mkdir(exist_ok=True)
        (folder / "data").write_bytes(bytes(1000))
    for path in (download / "data", *old, kept[-1]):
        os.utime(path, (1e9, 1e9))
    with open(made.with_name(".made.work-def") / "request.json", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a run goes on there
        os.utime(made.with_name(".made.work-def"), (1e9, 1e9))
        done = rockledge("clean", "--yes", "--json")
    assert len(done.json["removed"]) == 4
    assert done.json["freed_mb"] == 0.003
    assert [path.exists() for path in (*old, half, *kept)] == [False] * 4 + [True] * 3


def test_a_list_that_is_damaged_or_cannot_be_written(
    rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    remember("a")
    places.made_artifacts().open("ab").write(b"{\n17\n\xff\n" + b"[" * 100_000 + b"\n")
    remember("b")
    remember("a")
    assert remembered() == [tmp_path / "a", tmp_path / "b"]
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("a file")
    assert rockledge("quantize", checkpoint, "-o", tmp_path / "out", "--instant").code == 0
    assert remembered() == []
