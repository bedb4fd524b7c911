"""The picture of the accuracy table: its axes are whole, and saved rows can be drawn again."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.accuracy_plot import drawing, main
from bench.accuracy_rows import Row
from bench.goals import OURS, THEIRS

ROWS = [
    Row("m", engine, f"{bits}", 1, bits, kl, kl, 0.9, 20.0, "abc1234")
    for engine, bits, kl in [(OURS, 3.5, 0.2), (OURS, 8.0, 0.0031), (THEIRS, 8.5, 0.0042), (THEIRS, 4.5, 1.3)]
]


def test_axes_are_not_cut_and_have_units() -> None:
    (panel,) = drawing(ROWS).axes
    low, high = panel.get_xlim()
    assert low == 0
    assert high > 8.5
    assert panel.get_ylim() == pytest.approx((1e-3, 10))
    assert panel.get_xlabel().startswith("bits per weight")
    assert panel.get_ylabel() == "KL divergence (nats/token)"


def test_saved_rows_are_drawn_beside_them(tmp_path: Path) -> None:
    saved = tmp_path / "some.json"
    saved.write_text(json.dumps({"rows": [asdict(row) for row in ROWS]}))
    assert main([str(saved)]) == 0
    assert (tmp_path / "some.png").read_bytes().startswith(b"\x89PNG")
