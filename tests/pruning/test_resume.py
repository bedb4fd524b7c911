"""A run that is killed at any moment leaves nothing that looks whole, and is finished by the next one, to the
same bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.pruning import killed_runs
from tests.pruning.teachers import letters, teacher

from rockledge.errors import RockledgeError, UsageError
from rockledge.pruning import prune, stages, targets
from rockledge.pruning.request import request_of

SETTINGS: dict[str, Any] = {"body": 0.7, "tokens": 256}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a text, and `whole`, which a run made that nobody stopped."""
    folder = tmp_path_factory.mktemp("killed")
    letters(folder / "text.txt")
    teacher("llama-tied", folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def moments(place: Path) -> int:
    return int(killed(place))


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TOLERANCE", 0.3)


def killed(place: Path, *wanted: str) -> str:
    paths = [str(place / name) for name in ("teacher", "text.txt")] + [str(place)]
    return subprocess.run(
        [sys.executable, "-m", killed_runs.__name__, *paths, json.dumps(SETTINGS), *wanted],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def go_on(place: Path, out: Path, **settings: Any) -> tuple[str, ...]:
    """Prunes, and returns the stages that were there already."""
    asked = request_of({**SETTINGS, **settings, "calibration": place / "text.txt"})
    return prune.prune(place / "teacher", out, asked, force=True).reused


def contents(out: Path) -> dict[str, bytes]:
    """All but the report for people, which says how long it took."""
    return {file.name: file.read_bytes() for file in out.iterdir() if file.name != "pruning.md"}


def test_a_run_killed_at_any_moment_is_finished_by_the_next(place: Path, moments: int) -> None:
    whole = contents(place / "whole")
    spread = {1 + round(part * (moments - 1) / 7) for part in range(7)}
    at = sorted(spread | set(range(moments - 3, moments)))
    killed(place, *map(str, at))
    reused = []
    for moment in at:
        folder = place / str(moment)
        out = folder / "out"
        if out.exists():  # it was killed while it removed what it had kept
            assert contents(out) == whole
            with pytest.raises(UsageError, match="not empty"):
                go_on(place, out)
        else:
            reused.append(len(go_on(place, out)))
        assert contents(out) == whole, moment
        assert [left.name for left in folder.iterdir()] == ["out"], moment
    assert reused == sorted(reused)
    assert (min(reused), max(reused)) == (0, 5)  # importance, three of layers, shapes


def test_a_run_may_be_killed_again_and_again(place: Path, moments: int) -> None:
    killed(place, f"{moments // 3},{moments // 5},{moments // 4},{moments // 5}")
    (folder,) = (one for one in place.iterdir() if "," in one.name)
    assert len(go_on(place, folder / "out")) > 1
    assert contents(folder / "out") == contents(place / "whole")
    assert [left.name for left in folder.iterdir()] == ["out"]


@pytest.fixture
def stopped(place: Path, tmp_path: Path) -> Path:
    """The place of a run that ended before its last stage, whose finished ones are there."""

    def stop(*_: Any) -> float:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prune, "loss_of", stop)
        with pytest.raises(KeyboardInterrupt):
            go_on(place, tmp_path / "out")
    assert {file.name for file in (tmp_path / ".out.prune").iterdir()} == {
        "process", "importance.stage", "layers.stage", "layers-again.stage", "layers-together.stage",
        "shapes.stage",
    }  # fmt: skip
    return tmp_path / "out"


def test_what_is_damaged_is_computed_again(place: Path, moments: int, stopped: Path) -> None:
    kept = stopped.parent / ".out.prune"
    for name, change in (
        ("importance", lambda data: data[:-40]),
        ("shapes", lambda data: data[:-9] + b"!" * 9),
    ):
        file = kept / f"{name}.stage"
        file.write_bytes(change(file.read_bytes()))
    (kept / "layers.stage").write_bytes(b"")
    assert go_on(place, stopped) == ("layers again", "layers together")
    assert contents(stopped) == contents(place / "whole")


def test_another_teacher_or_text_takes_nothing(place: Path, stopped: Path, tmp_path: Path) -> None:
    other = shutil.copytree(place / "teacher", tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    text = tmp_path / "text.txt"
    text.write_bytes((place / "text.txt").read_bytes()[::-1])
    for source, learnt in ((other, place / "text.txt"), (place / "teacher", text)):
        again, fresh = tmp_path / f"again-{source.name}", tmp_path / f"fresh-{source.name}"
        asked = request_of({"layers": 2, "tokens": 256, "calibration": learnt})
        kept = shutil.copytree(tmp_path / ".out.prune", tmp_path / f".{again.name}.prune")
        assert prune.prune(source, again, asked, force=True).reused == ()
        prune.prune(source, fresh, asked, force=True)
        assert contents(again) == contents(fresh)
        assert not kept.exists()


def test_another_target_takes_what_does_not_depend_on_it(place: Path, stopped: Path, tmp_path: Path) -> None:
    assert go_on(place, stopped, body=None, layers=1) == ("importance", "layers")
    assert go_on(place, tmp_path / "fresh", body=None, layers=1) == ()
    assert contents(stopped) == contents(tmp_path / "fresh")


def test_two_runs_do_not_make_one_output(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def second(*_: Any) -> Any:
        with pytest.raises(UsageError, match="another run is making") as caught:
            go_on(place, tmp_path / "out")
        said.append(caught.value)
        raise RockledgeError("that is all")

    monkeypatch.setattr(stages, "importance", second)
    with pytest.raises(RockledgeError, match="that is all"):
        go_on(place, tmp_path / "out")
    assert said
    assert not list(tmp_path.iterdir())


def test_a_stage_that_cannot_be_kept_costs_nothing_else(
    place: Path, moments: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(one: Path, other: Path) -> None:
        if str(other).endswith(".stage"):
            raise OSError(28, "No space left on device")
        replace(one, other)

    monkeypatch.setattr(os, "replace", full)
    go_on(place, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(place / "whole")
    assert [left.name for left in tmp_path.iterdir()] == ["out"]
