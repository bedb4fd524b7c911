"""`rockledge bench --sustained`: the curve of a long run, on this machine and on a virtual board."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
