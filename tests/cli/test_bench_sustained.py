"""`rockledge bench --sustained`: the curve of a long run, on this machine and on a virtual board."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rockledge.errors import DiskError
from rockledge.runtime import governing
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Output

Run = Callable[..., Any]


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_an_hour_on_a_virtual_board(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    curve = tmp_path / "hot.csv"
    options = ["--virtual-board", "passive", "--ambient", 45, "--batch", 4, "--curve", curve]
    done = rockledge("bench", artifact, "--sustained", "60m", *options, "--governor", "off", "--json")
    loose = done.json
    assert loose["basis"] == "modelled"
    assert loose["throttled_s"] > 600
    assert {row["cpu_mhz"] for row in rows(curve)} == {"2208", "1008"}
    again = rockledge("bench", artifact, "--sustained", "60m", *options, "--overwrite", "--json")
    held = again.json
    assert held["throttled_s"] == 0
    assert held["highest_celsius"] <= 74
    found = rows(curve)
    assert len(found) == 3600
    assert float(found[-1]["seconds"]) == 3600
    assert curve.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_on_this_machine(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    curve = tmp_path / "here.csv"
    options = ["--prompt", 4, "--generate", 20, "--threads", 1, "--curve", curve]
    done = rockledge("bench", artifact, "--sustained", "2s", *options, "--json")
    found = done.json
    assert found["basis"] == "measured"
    assert found["sustained_s"] >= 2
    assert found["mean_tok_s"] > 0
    assert len(rows(curve)) >= 2


def test_what_is_refused(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    curve = tmp_path / "kept.csv"
    curve.write_text("mine")
    for options, message in (
        (["--sustained", "60"], "is not a time such as 90s, 60m or 2h"),
        (["--sustained", "0s"], "is not a time such as 90s, 60m or 2h"),
        (
            ["--sustained", "1m", "--virtual-board", "water"],
            "unknown cooling 'water', expected one of passive",
        ),
        (["--sustained", "1m", "--virtual-board", "fan", "--curve", curve], "--overwrite"),
        (["--sustained", "1m", "--virtual-board", "fan", "--ambient", "nan"], "is not a number"),
        (
            ["--sustained", "1m", "--virtual-board", "fan", "--curve", curve.with_suffix(".png")],
            "the picture",
        ),
        (["--sustained", "1m", "--virtual-board", "fan", "--curve", "/proc/curve.csv"], "choose a writable"),
    ):
        done = rockledge("bench", artifact, *options)
        assert done.code != 0
        assert message in done.err
    assert curve.read_text() == "mine"


def test_a_run_that_ends_early_keeps_what_it_measured(
    rockledge: Run, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the governor, which has to give the NPU its clock back, is closed."""
    closed: list[bool] = []
    governor = SimpleNamespace(tick=lambda: None, close=lambda: closed.append(True))
    monkeypatch.setattr(governing, "make_governor", lambda *_, **__: governor)
    begun, step = time.monotonic(), Engine.step

    def failing(engine: Engine) -> list[Output]:
        if time.monotonic() - begun > 2.5:
            raise DiskError("the disk failed")
        return step(engine)

    monkeypatch.setattr(Engine, "step", failing)
    curve = tmp_path / "short.csv"
    options = ["--prompt", 4, "--generate", 20, "--threads", 1, "--curve", curve]
    done = rockledge("bench", artifact, "--sustained", "60m", *options)
    assert done.code == 1
    assert f"what was measured until then is in {curve}" in done.err
    assert "the disk failed" in done.err
    assert rows(curve)
    assert closed == [True]


def test_places_that_a_curve_cannot_have(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    words = ("bench", artifact, "--sustained", "5s", "--virtual-board", "fan", "--overwrite", "--curve")
    for curve, message in (
        ("", "is a directory, expected the name of a file"),
        ("/", "is a directory"),
        (tmp_path, "is a directory"),
        (tmp_path / "x.png", "is the name of the picture"),
        (tmp_path / "missing" / "x.csv", "does not exist"),
    ):
        done = rockledge(*words, curve)
        assert done.code == 2
        assert message in done.err
    assert not list(tmp_path.iterdir())


def test_a_virtual_board_is_for_long_runs(rockledge: Run, artifact: Path) -> None:
    done = rockledge("bench", artifact, "--virtual-board", "fan")
    assert done.code == 2
    assert "give its --sustained TIME too" in done.err
