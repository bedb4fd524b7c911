"""`rockledge bench` on a toy model: what it reports, not how fast it is."""

import importlib.util
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rockledge.cli.bench_plot import drawing

Run = Callable[..., Any]
QUICK = ("--read-buffer", "4M", "--repeat")


def test_speeds_and_memory_are_measured(rockledge: Run, artifact: Path) -> None:
    done = rockledge("bench", artifact, "--prompt", 16, "--generate", 8, "--threads", 1, *QUICK, 5, "--json")
    assert done.code == 0
    body = done.json
    assert (body["prompt_tokens"], body["generated_tokens"], body["threads"]) == (16, 8, 1)
    for key in ("prefill_tok_s", "decode_tok_s"):
        assert len(body[f"{key}_runs"]) == 5
        assert body[key] == statistics.median(body[f"{key}_runs"]) > 0
    assert body["peak_rss_mb"] > body["weights_mb"] >= body["step_mb"] > 0
    assert body["kernel"] in ("portable", "avx2", "vnni", "vnni512", "neon")
    assert body["processor"]
    assert body["bits_per_weight"] > 0
    assert body["read_gb_s"] >= body["read_small_pages_gb_s"] > 0


def test_lengths_depths_and_batches_are_crossed(rockledge: Run, artifact: Path) -> None:
    lengths = ("--prompt", 4, 32, "--depth", 1, 40, "--batch", 1, 3, "--generate", 4)
    done = rockledge("bench", artifact, *lengths, *QUICK, 1, "--json")
    assert done.code == 0
    body = done.json
    assert [one["prompt_tokens"] for one in body["prefill"]] == [4, 32]
    found = [(one["sequences"], one["past_tokens"]) for one in body["decode"]]
    assert found == [(1, 1), (1, 40), (3, 1), (3, 40)]
    assert body["decode_tok_s"] == body["decode"][0]["tok_s"]
    for one in body["decode"]:
        assert one["roofline_share"] == pytest.approx(one["gb_s"] / body["read_gb_s"], rel=0.05)
        assert one["gb_s"] >= one["tok_s"] / one["sequences"] * body["step_mb"] / 1e3 - 0.001


def test_people_read_a_table(rockledge: Run, artifact: Path) -> None:
    done = rockledge("bench", artifact, "--prompt", 4, "--generate", 4, "--batch", 1, 2, *QUICK, 1)
    lines = [line.split() for line in done.out.splitlines() if line]
    assert [line[:3] for line in lines if line[0] in ("prefill", "decode")] == [
        ["prefill", "4", "1"],
        ["decode", "4", "1"],
        ["decode", "4", "2"],
    ]
    assert "bits a weight" in done.out
    assert "thread" in done.out
    assert "resident" in done.out


def test_a_picture_is_drawn(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    picture = tmp_path / "speed.png"
    done = rockledge("bench", artifact, "--prompt", 4, 8, "--generate", 2, *QUICK, 1, "--plot", picture)
    assert done.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_its_axes_begin_at_nothing_and_have_units(rockledge: Run, artifact: Path) -> None:
    done = rockledge(
        "bench", artifact, "--prompt", 4, 8, "--generate", 2, *QUICK, 1, "--batch", 2, 3, "--json"
    )
    panels = drawing(done.json).axes
    assert [panel.get_title() for panel in panels] == ["prefill", "decode (% of memory bandwidth)"]
    for panel in panels:
        assert (panel.get_xlim()[0], panel.get_ylim()[0]) == (0, 0)
        assert "tokens/s" in panel.get_ylabel()
        for line in panel.lines:
            assert max(line.get_xdata()) <= panel.get_xlim()[1]
            assert max(line.get_ydata()) <= panel.get_ylim()[1]


def test_without_matplotlib_nothing_is_measured_in_vain(
    rockledge: Run, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "rockledge.cli.bench_plot.find_spec", lambda name: None if name == "matplotlib" else found(name)
    )
    done = rockledge("bench", artifact, "--plot", tmp_path / "speed.png")
    assert done.code == 2
    assert "pip install matplotlib" in done.err
    monkeypatch.undo()
    done = rockledge("bench", artifact, "--plot", tmp_path / "nowhere" / "speed.png")
    assert done.code == 2
    assert "does not exist" in done.err


def test_what_does_not_fit_is_said(rockledge: Run, artifact: Path) -> None:
    done = rockledge("bench", artifact, "--prompt", 500, "--generate", 100)
    assert done.code == 2
    assert "context" in done.err
    done = rockledge("bench", artifact, "--prompt", 100, "--ctx", 128, "--generate", 8, "--batch", 2)
    assert done.code == 2
    assert "--ctx is 128" in done.err
