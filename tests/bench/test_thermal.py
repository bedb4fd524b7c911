"""The bench of heat: a log predicted by the others, its flips, and that the stored constants are today's."""

import json

import pytest

from bench.thermal import LOGS, RESULTS, THROTTLED, flips, left_out
from bench.thermal_series import read_series
from rockledge.board.rk3588_heat import COOLINGS


def test_the_goal_of_the_log_that_throttles() -> None:
    log = next(one for one in LOGS if one.name == THROTTLED)
    found, known, series = left_out(log)
    assert not found.own
    assert found.rms <= 3.0
    assert found.loaded_rms <= 3.0
    flip = flips(known, series, log.cooling, found.ambient)
    # The log says 73.9 to 74.8 °C, in steps of 0.92 K; a changed clock between two samples every 112 s.
    assert 72.9 <= flip.low <= flip.high <= 75.8
    assert 0.5 <= flip.modelled_samples_a_change / flip.published_samples_a_change <= 2.0
    stored = json.loads((RESULTS / "thermal.json").read_text())
    assert stored["flips"]["published_samples_a_change"] == pytest.approx(
        flip.published_samples_a_change, abs=0.1
    )
    row = next(one for one in stored["left_out"] if one["log"] == THROTTLED)
    assert row["rms"] == pytest.approx(found.rms, abs=0.05)


def test_the_constants_are_those_that_were_fitted() -> None:
    stored = json.loads((RESULTS / "thermal.json").read_text())["coolings"]
    assert set(stored) == set(COOLINGS)
    for name, row in stored.items():
        cooling = COOLINGS[name]
        assert cooling.fast.kelvin_per_watt == pytest.approx(row["fast_k_per_w"], abs=0.01)
        assert cooling.slow.kelvin_per_watt == pytest.approx(row["slow_k_per_w"], abs=0.01)
        assert cooling.fast.seconds == pytest.approx(row["fast_s"], abs=0.1)
        assert cooling.slow.seconds == pytest.approx(row["slow_s"], abs=1)


def test_the_parts_of_a_log() -> None:
    series = read_series(LOGS[0])
    assert series.load[0] == "memory, little core"
    assert series.load[-1] == "cpuminer, all cores"
    assert series.seconds[series.loaded_from] == 521
    assert (series.weight.sum(axis=1) > 0).all()
